"""What a receiver learns of its callers on a real socket: what they did not get, when their studies are complete."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from config import Settings
from ledger.completeness import Waiting
from ledger.ledger import Ledger
from ledger.peers import ASSOCIATION, IN_ALL, INSTANCE, Observed
from ledger.store import Store
from node.watching.echo import own_echo
from scp.callers.habits import ENOUGH_RELEASES
from tests.support.encoded import CT, data_set
from tests.support.rawscu import EXPLICIT_LITTLE, RawScu, Rejected
from tests.support.receiving import Receiving, StartReceiving
from tests.support.waiting import wait_until

VERIFICATION = "1.2.840.10008.1.1"
CT_CONTEXT = [(CT, (EXPLICIT_LITTLE,))]
PRIVATE, PRIVATE_SYNTAX = "1.3.12.2.1107.5.9.1", "1.2.840.113619.5.2"
STUDY = "1.2.3.1"
SLOW = {"complete_after_s": 500.0, "complete_after_release_s": 100.0}


def send(scu: RawScu, uid: str, study: str = STUDY) -> int:
    return scu.store(CT, uid, data_set(SOPInstanceUID=uid, StudyInstanceUID=study)).status


def due_in_s(node: Receiving, study: str = STUDY) -> float:
    waiting = node.ledger.waiting(study)
    assert isinstance(waiting, Waiting)
    return (waiting.due_at - datetime.now(UTC)).total_seconds()


def known_before(folder: Path, gaps: dict[tuple[bool, int], int]) -> None:
    """What an earlier run of the node learned of CT1."""
    ledger = Ledger.open(f"sqlite:///{folder / 'ledger.sqlite'}", Store(folder / "store"))
    ledger.observe({"CT1": Observed(1, 1, gaps)})
    ledger.close()


def test_what_a_caller_did_not_get_is_kept_by_name(start: StartReceiving) -> None:
    node = start()
    for _ in range(2):
        contexts = [(PRIVATE, (EXPLICIT_LITTLE,)), (CT, (PRIVATE_SYNTAX,)), *CT_CONTEXT]
        with RawScu(node.address, contexts, calling="CT1") as scu:
            scu.release()
    node.receiver.stop(5.0)
    found = {
        (one.abstract_syntax, one.transfer_syntaxes, one.reason): one.count for one in node.ledger.refused_of("CT1")
    }
    assert found == {
        (PRIVATE, (EXPLICIT_LITTLE,), "abstract_syntax"): 2,
        (CT, (PRIVATE_SYNTAX,), "transfer_syntax"): 2,
    }
    [peer] = node.ledger.peers()
    assert (peer.calling_ae_title, peer.associations, peer.instances) == ("CT1", 2, 0)


def test_the_nodes_own_echo_makes_nobody_a_sender_and_a_senders_echo_does(start: StartReceiving) -> None:
    node = start()
    host, port = node.address
    settings = Settings.model_validate({"receive": {"host": host, "port": port}})
    assert all(own_echo(settings, timeout_s=30.0) for _ in range(3))
    with RawScu(node.address, [(VERIFICATION, (EXPLICIT_LITTLE,))], calling="CT1") as scu:
        scu.release()
    node.receiver.stop(5.0)
    assert [(one.calling_ae_title, one.associations) for one in node.ledger.peers()] == [("CT1", 1)]


def test_whoever_brings_something_is_a_sender_even_under_the_nodes_own_name(start: StartReceiving) -> None:
    node = start()
    with RawScu(node.address, CT_CONTEXT, calling="OPENTRIAGE") as scu:
        assert [send(scu, uid) for uid in ("1.5.1", "1.5.2")] == [0, 0]
        scu.release()
    with RawScu(node.address, [(PRIVATE, (EXPLICIT_LITTLE,)), *CT_CONTEXT], calling="OPENTRIAGE") as scu:
        scu.release()  # it did not get all that it asked for
    node.receiver.stop(5.0)
    [peer] = node.ledger.peers()
    assert (peer.calling_ae_title, peer.associations, peer.instances) == ("OPENTRIAGE", 2, 2)


def test_who_was_rejected_and_what_was_refused_is_kept(start: StartReceiving) -> None:
    node = start(max_associations_per_ae=1, allowed_calling_ae_titles=["CT1"])
    for called, calling in (("OPENTRIAG", "CT1"), ("OPENTRIAG", "CT1"), ("OPENTRIAGE", "CT2")):
        with pytest.raises(Rejected):
            RawScu(node.address, CT_CONTEXT, called, calling)
    with RawScu(node.address, CT_CONTEXT, calling="CT1") as scu:
        with pytest.raises(Rejected):
            RawScu(node.address, CT_CONTEXT, calling="CT1")
        assert scu.store(CT, "1.5.9", data_set(SOPInstanceUID="1.5.8")).status == 0xA900
        scu.release()
    node.receiver.stop(5.0)
    found = {
        title: {
            (one.abstract_syntax, one.transfer_syntaxes, one.reason): one.count
            for one in node.ledger.turned_away(title)
        }
        for title in ("CT1", "CT2")
    }
    assert found == {
        "CT1": {
            (ASSOCIATION, ("OPENTRIAG",), "called_ae_title"): 2,
            (ASSOCIATION, (), "local_limit"): 1,
            (INSTANCE, (), "0xA900"): 1,
        },
        "CT2": {(ASSOCIATION, (), "calling_ae_title"): 1},
    }
    assert {one.calling_ae_title: one.associations for one in node.ledger.peers()} == {"CT1": 1, "CT2": 0}
    assert (node.ledger.refused_of("CT1"), node.ledger.refused_counts()) == ([], {})


def test_how_a_sender_sends_is_kept(start: StartReceiving) -> None:
    node = start()
    number, observer = iter(range(1, 10)), node.receiver._observer
    for images in (3, 1):
        with RawScu(node.address, CT_CONTEXT, calling="CT1") as scu:
            assert [send(scu, f"1.5.{next(number)}") for _ in range(images)] == [0] * images
            scu.release()
        wait_until(lambda: not observer._arrivals._open, within_s=30)  # a study that is open elsewhere is not released
    node.receiver.stop(5.0)
    gaps = node.ledger.arrival_gaps()["CT1"]
    assert (gaps[False, IN_ALL], gaps[True, IN_ALL]) == (1, 2)
    counted = {
        between: sum(n for (b, k), n in gaps.items() if b is between and k != IN_ALL) for between in (False, True)
    }
    assert counted == {False: 2, True: 1}
    assert node.ledger.peers()[0].instances == 4


def test_the_release_of_a_sender_that_is_known_completes_its_study(start: StartReceiving, tmp_path: Path) -> None:
    known_before(tmp_path, {(True, IN_ALL): ENOUGH_RELEASES})
    node = start(study=SLOW)
    with RawScu(node.address, CT_CONTEXT, calling="CT1") as scu:
        assert send(scu, "1.5.1") == 0
        assert due_in_s(node) > 400
        scu.release()
    wait_until(lambda: due_in_s(node) < 110, within_s=30)
    waiting = node.ledger.waiting(STUDY)
    assert waiting is not None
    assert waiting.because.startswith("CT1 released the association of the newest image and sent no other for 100 s")


def test_an_abort_and_the_release_of_a_stranger_are_no_evidence(start: StartReceiving, tmp_path: Path) -> None:
    known_before(tmp_path, {(True, IN_ALL): ENOUGH_RELEASES})
    node = start(study=SLOW)
    with RawScu(node.address, CT_CONTEXT, calling="CT1") as scu:
        assert send(scu, "1.5.1") == 0
        scu.abort()
    with RawScu(node.address, CT_CONTEXT, calling="STRANGER") as scu:
        assert send(scu, "1.5.2", "1.2.3.9") == 0
        scu.release()
    node.receiver.stop(5.0)
    assert min(due_in_s(node), due_in_s(node, "1.2.3.9")) > 400


def test_what_was_learned_of_a_sender_holds_after_a_restart(start: StartReceiving, tmp_path: Path) -> None:
    known_before(tmp_path, {(False, 25): 1000, (False, IN_ALL): 100})  # 5.8 s
    node = start(study={"complete_after_s": 500.0})
    with RawScu(node.address, CT_CONTEXT, calling="CT1") as scu:
        sent = datetime.now(UTC)
        assert send(scu, "1.5.1") == 0
        answered = datetime.now(UTC)
    waiting = node.ledger.waiting(STUDY)
    assert waiting is not None
    assert (waiting.due_at - sent).total_seconds() > 8  # it was admitted in between, whenever that was
    assert (waiting.due_at - answered).total_seconds() < 12
