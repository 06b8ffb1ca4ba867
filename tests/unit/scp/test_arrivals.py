"""Pauses between the images of a study, counted by who made them wait."""

from pathlib import Path

import pytest

from config import Settings
from config.settings import StudySettings
from ledger.peers import IN_ALL, Observed
from scp.callers import newest as module
from scp.callers.arrivals import SENDERS_MAX, STUDIES_OF_AN_ASSOCIATION_MAX, Arrivals
from scp.callers.habits import bucket_of
from scp.callers.newest import Newest
from scp.callers.observing import merged
from scp.callers.own import OwnCalls
from scp.callers.refused import CALLERS_MAX, INVALID, KINDS_MAX, SYNTAXES_MAX, RefusedContexts
from scp.network.engine import AssociationFacts, Ending, RefusedContext

CT, JPEG = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.4.50"
TRUSTED = {"CT1": {(True, IN_ALL): 1000}}  # releases when all is sent


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def arrivals(clock: Clock) -> Arrivals:
    return Arrivals(StudySettings(), Newest(now=clock))


def over(association: str, sender: str = "CT1") -> AssociationFacts:
    return AssociationFacts(association, sender, "OPENTRIAGE", "10.0.0.1")


def test_pauses_are_counted_apart_within_an_association_and_between_two(arrivals: Arrivals, clock: Clock) -> None:
    for association, pause_s in (("a", 0.0), ("a", 2.0), ("b", 7.0)):
        clock.now += pause_s
        arrivals.stored(over(association), "1.1")
    assert arrivals.take() == {
        "CT1": Observed(0, 3, {(False, IN_ALL): 1, (False, bucket_of(2.0)): 1, (True, bucket_of(7.0)): 1})
    }
    assert arrivals.take() == {}


def test_studies_that_come_side_by_side_have_each_their_own_pauses(arrivals: Arrivals, clock: Clock) -> None:
    for study in ("1.1", "1.2", "1.1", "1.2"):
        clock.now += 1.0
        arrivals.stored(over("a"), study)
    assert arrivals.take()["CT1"].gaps == {(False, IN_ALL): 2, (False, bucket_of(2.0)): 2}


def test_a_study_that_is_opened_again_hours_later_is_a_new_beginning(arrivals: Arrivals, clock: Clock) -> None:
    for _ in range(2):
        arrivals.stored(over("a"), "1.1")
        clock.now += 7200.0
    assert arrivals.take()["CT1"].gaps == {(False, IN_ALL): 2}


def test_a_clock_that_began_anew_with_the_machine_is_no_pause(arrivals: Arrivals, clock: Clock) -> None:
    arrivals.stored(over("a"), "1.1")
    clock.now = 1.0
    arrivals.stored(over("a"), "1.1")
    assert arrivals.take()["CT1"].gaps == {(False, IN_ALL): 2}


def test_who_made_a_study_wait_is_who_sent_the_image_before(arrivals: Arrivals, clock: Clock) -> None:
    arrivals.stored(over("a"), "1.1")
    clock.now += 9.0
    arrivals.stored(over("b", "WORKSTATION"), "1.1")
    seen = arrivals.take()
    assert seen["CT1"].gaps == {(False, IN_ALL): 1, (True, bucket_of(9.0)): 1}
    assert seen["WORKSTATION"].gaps == {}


def test_what_is_no_image_is_counted_and_is_no_pause(arrivals: Arrivals) -> None:
    arrivals.stored(over("a"), None)
    assert arrivals.take() == {"CT1": Observed(instances=1)}


def test_what_is_learned_of_a_sender_decides_the_wait(arrivals: Arrivals) -> None:
    assert arrivals.completion("CT1").after_s == 20.0
    arrivals.learn({"CT1": {(False, bucket_of(30.0)): 100, (False, IN_ALL): 50}})
    assert arrivals.completion("CT1").after_s > 60.0
    assert arrivals.completion("CT2").after_s == 20.0


def test_a_release_completes_the_studies_whose_newest_images_it_brought(arrivals: Arrivals) -> None:
    arrivals.learn(TRUSTED)
    arrivals.stored(over("a"), "1.1")
    arrivals.stored(over("a"), "1.2")
    arrivals.stored(over("b"), "1.2")
    released = arrivals.ended(over("a"), Ending.RELEASED)
    assert released is not None
    assert (released.study_uids, released.completion.after_s) == (("1.1",), 3.0)
    assert arrivals.take()["CT1"].gaps[True, IN_ALL] == 1


@pytest.mark.parametrize("ending", [Ending.ABORTED, Ending.CUT])
def test_an_abort_is_no_evidence(arrivals: Arrivals, ending: Ending) -> None:
    arrivals.learn(TRUSTED)
    arrivals.stored(over("a"), "1.1")
    assert arrivals.ended(over("a"), ending) is None
    assert (True, IN_ALL) not in arrivals.take()["CT1"].gaps


def test_a_release_says_nothing_while_another_association_still_brings_the_study(arrivals: Arrivals) -> None:
    arrivals.learn(TRUSTED)
    arrivals.stored(over("b"), "1.1")
    arrivals.stored(over("a"), "1.1")
    assert arrivals.ended(over("a"), Ending.RELEASED) is None
    arrivals.stored(over("b"), "1.1")
    assert arrivals.ended(over("b"), Ending.RELEASED) is not None


def test_a_release_says_nothing_of_a_study_whose_newest_image_came_over_another(arrivals: Arrivals) -> None:
    arrivals.learn(TRUSTED)
    arrivals.stored(over("a"), "1.1")
    arrivals.stored(over("b"), "1.1")
    assert arrivals.ended(over("b"), Ending.ABORTED) is None
    assert arrivals.ended(over("a"), Ending.RELEASED) is None


def test_a_release_says_nothing_where_an_instance_was_refused(arrivals: Arrivals) -> None:
    arrivals.learn(TRUSTED)
    arrivals.stored(over("a"), "1.1")
    arrivals.refused(over("a"), 0xA700)
    assert arrivals.ended(over("a"), Ending.RELEASED) is None


def test_a_release_long_after_the_last_image_says_nothing(arrivals: Arrivals, clock: Clock) -> None:
    arrivals.learn(TRUSTED)
    arrivals.stored(over("a"), "1.1")
    clock.now += 500.0
    assert arrivals.ended(over("a"), Ending.RELEASED) is None


def test_an_association_that_stays_open_all_day_is_remembered_in_part(arrivals: Arrivals) -> None:
    arrivals.learn(TRUSTED)
    for number in range(STUDIES_OF_AN_ASSOCIATION_MAX + 10):
        arrivals.stored(over("a"), f"1.{number}")
    released = arrivals.ended(over("a"), Ending.RELEASED)
    assert released is not None
    assert len(released.study_uids) <= STUDIES_OF_AN_ASSOCIATION_MAX
    assert f"1.{STUDIES_OF_AN_ASSOCIATION_MAX + 9}" in released.study_uids
    assert arrivals.ended(over("a"), Ending.RELEASED) is None  # forgotten


def test_invented_senders_fill_no_memory(arrivals: Arrivals) -> None:
    for number in range(SENDERS_MAX + 50):
        arrivals.stored(over("a", f"X{number}"), f"1.{number}")
    assert len(arrivals.take()) == SENDERS_MAX


def test_two_processes_know_the_same_newest_image(tmp_path: Path, clock: Clock) -> None:
    one, other = (Newest(tmp_path / "newest", clock) for _ in range(2))
    one.put("1.1", "a", "CT1")
    clock.now += 3.0
    image = other.of("1.1", "a")
    assert image is not None
    assert (image.ago_s, image.sender, image.same) == (3.0, "CT1", True)
    assert other.of("1.2", "a") is None


def test_half_a_write_is_nothing(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "newest"
    newest = Newest(path, clock)
    newest.put("1.1", "a", "CT1")
    content = bytearray(path.read_bytes())
    place = content.index(b"CT1")
    content[place] ^= 1
    with path.open("r+b") as file:
        file.write(content)
    assert newest.of("1.1", "a") is None


def test_what_was_written_before_the_machine_booted_is_nothing(tmp_path: Path, clock: Clock) -> None:
    """The monotonic clock has begun anew meanwhile, and may have come as far as it was."""
    path = tmp_path / "newest"
    Newest(path, clock, boot=b"yesterday").put("1.1", "a", "CT1")
    clock.now += 3.0
    assert Newest(path, clock).of("1.1", "a") is None
    Newest(path, clock).put("1.1", "a", "CT1")
    assert Newest(path, clock).of("1.1", "a") is not None  # the next process of this boot


def test_studies_that_share_a_slot_take_it_from_each_other(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLOTS", 1)
    newest = Newest(now=clock)
    newest.put("1.1", "a", "CT1")
    newest.put("1.2", "a", "CT1")
    assert newest.of("1.1", "a") is None
    assert newest.of("1.2", "a") is not None


def refusal(uid: str, *syntaxes: str, reason: str = "abstract_syntax") -> RefusedContext:
    return RefusedContext(uid, syntaxes, reason)


def test_refused_contexts_are_counted_by_name() -> None:
    contexts = RefusedContexts()
    for _ in range(2):
        contexts.negotiated(over("a"), [refusal(CT, JPEG, reason="transfer_syntax"), refusal("1.2.3", JPEG)])
    contexts.negotiated(over("b"), [])
    seen = contexts.take()
    assert seen == {
        "CT1": Observed(3, refused={(CT, JPEG, "transfer_syntax"): 2, ("1.2.3", JPEG, "abstract_syntax"): 2})
    }
    assert contexts.take() == {}


def test_what_is_no_uid_is_counted_without_its_name() -> None:
    contexts = RefusedContexts()
    contexts.negotiated(over("a"), [refusal("<script>", "1.02", "x" * 70, "", reason="anything")])
    assert contexts.take()["CT1"].refused == {(INVALID, INVALID, "abstract_syntax"): 1}


def test_hostile_callers_fill_no_memory() -> None:
    contexts = RefusedContexts()
    for number in range(CALLERS_MAX + 20):
        many = [refusal(f"1.{number}.{n}", *(f"1.2.{s}" for s in range(50))) for n in range(30)]
        contexts.negotiated(over("a", f"\x1b[2J{number}"), many)
    seen = contexts.take()
    assert len(seen) == CALLERS_MAX
    kinds = [kind for one in seen.values() for kind in one.refused]
    assert len(kinds) <= KINDS_MAX + CALLERS_MAX
    assert all(len(syntaxes.split()) <= SYNTAXES_MAX for _, syntaxes, _ in kinds)
    assert all(title.isprintable() for title in seen)


def test_what_both_counted_goes_to_the_ledger_together() -> None:
    came, called = (
        {"CT1": Observed(0, 5, {(False, 1): 2})},
        {"CT1": Observed(1, refused={(CT, "", "abstract_syntax"): 1})},
    )
    assert merged(came, called | {"X": Observed(2)}) == {
        "CT1": Observed(1, 5, {(False, 1): 2}, {(CT, "", "abstract_syntax"): 1}),
        "X": Observed(2),
    }


@pytest.mark.parametrize(
    ("title", "address", "own"),
    [
        ("OPENTRIAGE", "127.0.0.1", True),
        ("OPENTRIAGE ", "::1", True),
        ("OPENTRIAGE", "::ffff:127.0.0.1", True),
        ("OPENTRIAGE", "10.0.0.7", True),
        ("OPENTRIAGE", "10.0.0.8", False),
        ("OPENTRIAGE", "", False),
        ("CT1", "127.0.0.1", False),
    ],
)
def test_a_call_is_the_nodes_own_by_its_name_from_its_machine(title: str, address: str, own: bool) -> None:
    calls = OwnCalls(Settings.model_validate({"receive": {"host": "10.0.0.7"}}))
    assert calls.may_be(AssociationFacts("a", title, "OPENTRIAGE", address)) is own


def test_a_silent_association_that_ends_silently_was_never_there(arrivals: Arrivals) -> None:
    arrivals.begun_silently(over("a"))
    assert arrivals.ended(over("a"), Ending.RELEASED) is None
    arrivals.begun_silently(over("b"))
    arrivals.own(over("b"))  # a heartbeat
    assert arrivals.take() == {}
    arrivals.begun_silently(over("c"))
    arrivals.refused(over("c"), 0xA700)
    assert arrivals.take()["CT1"].associations == 1
