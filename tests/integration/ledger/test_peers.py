"""What is kept of those who call: how they send, what they did not get; and never more than there is room for."""

from ledger import peers
from ledger.ledger import Ledger
from ledger.peers import ASSOCIATION, CONTEXTS_MAX, IN_ALL, OTHERS, PEERS_MAX, REMEMBERED_STUDIES, Observed

CT = "1.2.840.10008.5.1.4.1.1.2"
JPEG = "1.2.840.10008.1.2.4.50"


def test_what_a_peer_does_adds_up(ledger: Ledger) -> None:
    for _ in range(2):
        known = ledger.observe(
            {"CT1": Observed(1, 30, {(False, 4): 29, (False, IN_ALL): 1}, {(CT, JPEG, "abstract_syntax"): 2})}
        )
    assert known == {"CT1": {(False, 4): 58, (False, IN_ALL): 2}} == ledger.arrival_gaps()
    [peer] = ledger.peers()
    assert (peer.calling_ae_title, peer.associations, peer.instances) == ("CT1", 2, 60)
    [refused] = ledger.refused_of("CT1")
    assert (refused.abstract_syntax, refused.transfer_syntaxes, refused.count) == (CT, (JPEG,), 4)
    assert peer.first_at <= refused.first_at <= refused.last_at
    assert ledger.refused_counts() == {("CT1", "abstract_syntax", True): 4}


def test_strangers_make_room_and_who_stores_here_is_never_forgotten(ledger: Ledger) -> None:
    ledger.observe({"CT1": Observed(1, 1)})
    for start in range(0, 2 * PEERS_MAX, 50):
        ledger.observe(
            {f"X{n}": Observed(1, refused={(CT, "", "abstract_syntax"): 1}) for n in range(start, start + 50)}
        )
    titles = [peer.calling_ae_title for peer in ledger.peers()]
    assert len(titles) == PEERS_MAX
    assert "CT1" in titles
    assert f"X{2 * PEERS_MAX - 1}" in titles
    assert {title for title, _, _ in ledger.refused_counts()} <= set(titles)


def test_when_all_have_stored_a_newcomer_is_not_kept(ledger: Ledger) -> None:
    ledger.observe({f"CT{n}": Observed(1, 1) for n in range(PEERS_MAX)})
    assert ledger.observe({"NEW": Observed(1, 1, {(False, 1): 1}), "CT1": Observed(1, 1)}) == {}
    assert len(ledger.peers()) == PEERS_MAX
    assert {peer.calling_ae_title: peer.instances for peer in ledger.peers()}["CT1"] == 2


def test_beyond_so_many_contexts_a_peers_refusals_are_counted_without_a_name(ledger: Ledger) -> None:
    many = {(f"1.2.{n}", JPEG, "abstract_syntax"): 1 for n in range(CONTEXTS_MAX + 50)}
    for _ in range(2):
        ledger.observe({"CT1": Observed(1, 1, refused=dict(many))})
    found = ledger.refused_of("CT1")
    assert len(found) == CONTEXTS_MAX + 1
    assert (found[0].abstract_syntax, found[0].count) == (OTHERS, 100)
    assert sum(one.count for one in found) == 2 * len(many)


def test_called_titles_without_end_are_counted_without_a_name(ledger: Ledger) -> None:
    many = {(ASSOCIATION, f"X{n}", "called_ae_title"): 1 for n in range(CONTEXTS_MAX + 50)}
    for _ in range(2):
        ledger.observe({"CT1": Observed(refused=dict(many))})
    found = ledger.turned_away("CT1")
    assert (len(found), found[0].transfer_syntaxes, found[0].count) == (CONTEXTS_MAX + 1, (), 100)
    assert (ledger.refused_of("CT1"), ledger.refused_counts()) == ([], {})


def test_old_habits_are_outweighed_by_new_ones(ledger: Ledger) -> None:
    known = ledger.observe({"CT1": Observed(gaps={(False, 10): 5001, (False, IN_ALL): REMEMBERED_STUDIES + 1})})
    assert known["CT1"] == {(False, 10): 2501, (False, IN_ALL): REMEMBERED_STUDIES // 2 + 1}


def test_nobody_has_called(ledger: Ledger) -> None:
    assert ledger.observe({}) == {}
    assert (ledger.peers(), ledger.refused_of("CT1"), ledger.refused_counts()) == ([], [], {})
    assert peers.PEERS_MAX == 200
