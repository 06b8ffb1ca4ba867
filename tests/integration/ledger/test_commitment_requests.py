"""Requests for storage commitment in the ledger: one teller at a time, and none forgotten."""

from dataclasses import replace

import pytest

from ledger import commitment_requests, commitment_results
from ledger.commitment_requests import HeldRequest, RequestState
from ledger.commitment_results import CommitmentRequest, Listed
from ledger.completion import Completion
from ledger.errors import LeaseLost
from ledger.ledger import Ledger
from tests.support.ledgers import admit

CLASS = "1.2.840.10008.5.1.4.1.1.1.1"  # of what `admit` makes
LEASE_S = 60.0
WAITING, CONFIRMED, PARKED = RequestState.WAITING, RequestState.CONFIRMED, RequestState.PARKED


@pytest.fixture(autouse=True)
def no_head_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commitment_requests, "SAME_ASSOCIATION_S", 0.0)


def asked(ledger: Ledger, *uids: str, transaction: str = "2.25.1", title: str = "CT1", patience_s: float = 0.0) -> int:
    listed = tuple(Listed(CLASS, uid) for uid in uids)
    return ledger.commitment_requested(CommitmentRequest(title, transaction, listed), patience_s)


def claimed(ledger: Ledger, title: str = "CT1", owner: str = "me:") -> HeldRequest:
    held = ledger.claim_commitment(title, owner, LEASE_S)
    assert held is not None
    return held


def states(ledger: Ledger) -> dict[RequestState, int]:
    return ledger.commitments_so_far().get("CT1", {})


def test_a_request_is_held_by_one_and_ends_when_its_sender_confirms(ledger: Ledger) -> None:
    admit(ledger, 1)
    asked(ledger, "2.25.1001", "2.25.9")
    held = claimed(ledger)
    assert ledger.claim_commitment("CT1", "other:", LEASE_S) is None
    judgement = ledger.judge_commitment(held, 3600.0)
    assert judgement is not None
    assert [reason for _, reason in judgement.result.judged] == [0x0110, 0x0112]  # bytes of a test are no DICOM file
    assert [one.study_instance_uid for one in judgement.damaged] == ["2.25.3001"]
    ledger.commitment_told(held)
    assert states(ledger) == {CONFIRMED: 1}
    assert ledger.claim_commitment("CT1", "me:", LEASE_S) is None
    with pytest.raises(LeaseLost):
        ledger.commitment_told(held)
    [given] = [event for event in ledger.events("2.25.3001") if event.name == "commitment_given"]
    assert given.text == (
        "CT1 was told that 0 of 2 instances are kept here; not kept, 1: stored file damaged or gone "
        "(Failure Reason 0x0110); 1: had not come (Failure Reason 0x0112) (Storage Commitment, transaction 2.25.1)."
    )


def test_each_study_says_what_was_not_promised_also_what_never_came(ledger: Ledger) -> None:
    admit(ledger, 1)
    admit(ledger, 2)
    asked(ledger, "2.25.1001", "2.25.1002", "2.25.8", "2.25.9")
    held = claimed(ledger)
    assert ledger.judge_commitment(held, 0.0) is not None  # long ago, for so short a promise
    ledger.commitment_told(held)
    for study in ("2.25.3001", "2.25.3002"):
        [given] = [event for event in ledger.events(study) if event.name == "commitment_given"]
        assert "0 of 1 instances are kept here; not kept, 1: came longer ago than is promised" in given.text
        assert "; 2: had not come (Failure Reason 0x0112), of this study or another" in given.text


def test_requests_of_another_sender_are_not_ours_to_tell(ledger: Ledger) -> None:
    asked(ledger, "2.25.9", title="CT2")
    assert ledger.claim_commitment("CT1", "me:", LEASE_S) is None
    assert claimed(ledger, "CT2").calling_ae_title == "CT2"


def test_what_is_listed_is_waited_for_until_it_has_come(ledger: Ledger) -> None:
    key = asked(ledger, "2.25.1001", patience_s=3600.0)
    assert ledger.claim_commitment("CT1", "me:", LEASE_S) is None
    assert ledger.claim_this_commitment(key, "me:", LEASE_S) is None
    admit(ledger, 1)
    assert claimed(ledger).request_id == key


def test_what_its_teller_lost_the_next_one_has(ledger: Ledger) -> None:
    asked(ledger, "2.25.9")
    held = claimed(ledger, owner="dead:1:")
    ledger.free_commitments("dead:12:")
    assert ledger.claim_commitment("CT1", "me:", LEASE_S) is None
    ledger.abandon("dead:1:")
    again = claimed(ledger)
    assert again.attempt == 2
    for late in (ledger.commitment_told, lambda one: ledger.put_off_commitment(one, "")):
        with pytest.raises(LeaseLost):
            late(held)
    ledger.commitment_told(again)


def test_a_lease_that_ran_out_holds_nobody_up(ledger: Ledger) -> None:
    asked(ledger, "2.25.9")
    assert ledger.claim_commitment("CT1", "slow:", -1.0) is not None
    assert claimed(ledger).attempt == 2


def test_the_same_request_again_takes_it_from_who_tells_it(ledger: Ledger) -> None:
    key = asked(ledger, "2.25.8", "2.25.9")
    held = claimed(ledger)
    assert asked(ledger, "2.25.9", "2.25.8") == key
    with pytest.raises(LeaseLost):
        ledger.judge_commitment(held, 3600.0)
    assert (claimed(ledger).judged_s, states(ledger)) == (None, {WAITING: 1})


def test_a_verdict_is_told_for_an_hour_and_then_made_again(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    asked(ledger, "2.25.1001")
    held = claimed(ledger)
    first = ledger.judge_commitment(held, 3600.0)
    ledger.put_off_commitment(held, "away")
    admit(ledger, 1)
    held = claimed(ledger)
    assert ledger.judge_commitment(held, 3600.0) == first
    monkeypatch.setattr("ledger.promises.FRESH_S", 0.0)
    anew = ledger.judge_commitment(held, 3600.0)
    assert anew is not None
    assert [reason for _, reason in anew.result.judged] == [0x0110]


def test_reading_that_takes_too_long_is_left_to_who_has_the_time(ledger: Ledger) -> None:
    asked(ledger, "2.25.9")
    held = claimed(ledger)
    assert ledger.judge_commitment(held, 3600.0, within_s=-1.0) is None
    assert not ledger.put_off_commitment(held, "later")
    assert ledger.judge_commitment(claimed(ledger), 3600.0) is not None


def test_what_is_put_off_is_not_due_before_its_time(ledger: Ledger) -> None:
    asked(ledger, "2.25.9")
    assert not ledger.put_off_commitment(claimed(ledger), "away", delay_s=3600.0)
    assert ledger.claim_commitment("CT1", "me:", LEASE_S) is None


def test_what_the_sender_refused_is_not_tried_again_because_it_took_another(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commitment_requests, "GIVE_UP_S", -1.0)
    for number, status in enumerate((None, 0x0115)):
        asked(ledger, "2.25.9", transaction=f"2.25.{number + 1}")
        assert ledger.put_off_commitment(claimed(ledger), "no", status=status)
    assert states(ledger) == {PARKED: 2}
    asked(ledger, "2.25.9", transaction="2.25.3")
    ledger.commitment_told(claimed(ledger))
    assert states(ledger) == {CONFIRMED: 1, WAITING: 1, PARKED: 1}
    assert claimed(ledger).transaction_uid == "2.25.1"


def test_an_alarm_ends_after_a_week(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    asked(ledger, "2.25.9")
    assert ledger.park_unknown_commitments(["CT1"], "") == 0
    assert ledger.park_unknown_commitments([], "unknown") == 1
    assert states(ledger) == {PARKED: 1}
    monkeypatch.setattr(commitment_requests, "ALARM_FOR_S", -1.0)
    assert states(ledger) == {}


def judged_again(ledger: Ledger, transaction: str) -> None:
    asked(ledger, "2.25.1001", transaction=transaction)
    held = claimed(ledger)
    ledger.judge_commitment(held, 3600.0)
    ledger.commitment_told(held)


def test_what_is_damaged_is_known_once_until_it_is_found_whole(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also without a resend, as when a disk was away."""
    admit(ledger, 1)
    for transaction in ("2.25.1", "2.25.2"):  # bytes of a test are no DICOM file
        judged_again(ledger, transaction)
    assert (ledger.damaged_count(), len(ledger.damaged_of("2.25.3001"))) == (1, 1)
    assert ledger.damaged_of("2.25.3002") == frozenset()
    monkeypatch.setattr(commitment_results, "is_on_disk", lambda *_: True)
    judged_again(ledger, "2.25.3")
    assert ledger.damaged_count() == 0
    names = [event.name for event in ledger.events("2.25.3001")]
    assert (names.count("file_damaged"), names.count("file_healed")) == (1, 1)


def test_where_newer_bytes_came_the_older_ones_are_no_alarm(ledger: Ledger) -> None:
    first = admit(ledger, 1)
    judged_again(ledger, "2.25.1")
    ledger.admit(replace(first, sha256="f" * 64, path="instances/ff/other"), Completion(20.0))
    assert ledger.damaged_count() == 0
