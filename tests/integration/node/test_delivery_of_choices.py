"""A job whose report comes in several forms ends when one is accepted; what is put off waits and parks nobody."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from config import load_settings
from ledger.completion import Completion
from ledger.delivery_records import DeliveryOutcome, DeliveryState, Proof
from ledger.ledger import Ledger
from ledger.records import Stage, StoredObject, TriagePriority
from ledger.store import Store
from node.roles.deliver import Deliverer
from node.wiring import open_ledger
from sr_writer.errors import NotNow, NotProven
from tests.support.delivering import site
from tests.support.ledgers import all_to
from tests.support.records import judged, received, stored_object

DELIVERED, WAITING, REFUSED = DeliveryState.DELIVERED, DeliveryState.WAITING, DeliveryState.REFUSED
Told = list[tuple[str, DeliveryState]]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = open_ledger(load_settings(site(tmp_path, 1)))
    yield ledger
    ledger.close()


def deliver(ledger: Ledger, folder: Path, told: Told) -> dict[str, DeliveryState | None]:
    """One report of two forms and a picture; the destination says `told` of each kind. What the ledger says then."""
    ledger.admit(received("1.1"), Completion(0.001))
    [job] = ledger.claim(Stage.ANALYSE, "test", 1, 60)
    ledger.finish_analysis(job, [judged(TriagePriority.HIGH)])
    [job] = ledger.claim(Stage.REPORT, "test", 1, 60)
    made = [stored_object(ledger.store, kind) for kind in ("preferred", "other", "picture")]
    forms = [(replace(one, choice="sr", preference=i), path) for i, (one, path) in enumerate(made[:2])]
    objects = [*forms, made[2]]
    ledger.finish_report(job, ledger.study_findings(job), objects, all_to(objects, ["pacs"]))
    settings = load_settings(site(folder, 1))
    deliverer = Deliverer(ledger, settings, settings.destinations[0], threading.Event())
    deliverer._sender = Scripted(told)  # type: ignore[assignment]
    deliverer._once()
    return {one.kind: one.state for one in ledger.study_objects("1.1")}


class Scripted:
    def __init__(self, told: Told) -> None:
        self._told = told

    def send(
        self, objects: Sequence[StoredObject], store: Store, on_outcome: Callable[[DeliveryOutcome], None]
    ) -> None:
        by_kind = {one.kind: one.object_id for one in objects}
        for kind, state in self._told:
            on_outcome(DeliveryOutcome(by_kind[kind], state, None, f"{kind} {state}"))


def jobs(ledger: Ledger) -> dict[str, int]:
    return {key: n for key, n in ledger.counts()["jobs"].items() if n and key.startswith("deliver")}


def test_one_form_accepted_ends_the_job(ledger: Ledger, tmp_path: Path) -> None:
    states = deliver(ledger, tmp_path, [("preferred", DELIVERED), ("picture", DELIVERED)])
    assert states == {"preferred": "delivered", "other": "not_needed", "picture": "delivered"}
    assert jobs(ledger) == {"deliver:succeeded": 1}


def test_a_refused_form_is_forgotten_when_the_next_is_accepted(ledger: Ledger, tmp_path: Path) -> None:
    states = deliver(ledger, tmp_path, [("preferred", REFUSED), ("other", DELIVERED), ("picture", DELIVERED)])
    assert states == {"preferred": "not_needed", "other": "delivered", "picture": "delivered"}
    assert jobs(ledger) == {"deliver:succeeded": 1}


def test_a_form_that_waits_keeps_the_job(ledger: Ledger, tmp_path: Path) -> None:
    deliver(ledger, tmp_path, [("preferred", WAITING), ("picture", DELIVERED)])
    assert jobs(ledger) == {"deliver:queued": 1}


def test_no_form_accepted_parks_the_job_with_one_sentence(ledger: Ledger, tmp_path: Path) -> None:
    deliver(ledger, tmp_path, [("preferred", REFUSED), ("other", REFUSED), ("picture", DELIVERED)])
    [parked] = ledger.parked()
    assert parked.reason == "preferred refused other refused"


def test_a_destination_that_offers_no_proof_is_not_asked(ledger: Ledger, tmp_path: Path) -> None:
    deliver(ledger, tmp_path, [("preferred", DELIVERED), ("picture", DELIVERED)])
    assert ledger.claim(Stage.PROVE, "test", 1, 60) == []
    proofs = {one.proof for one in ledger.study_objects("1.1") if one.state is DELIVERED}
    assert proofs == {Proof.UNPROVEN}


def test_what_is_put_off_at_the_last_moment_waits_with_its_reason(ledger: Ledger, tmp_path: Path) -> None:
    deliver(ledger, tmp_path, [("preferred", DELIVERED), ("picture", DELIVERED)])
    settings = load_settings(site(tmp_path, 1))
    deliverer = Deliverer(ledger, settings, settings.destinations[0], threading.Event())
    objects = ledger.study_objects("1.1")
    delivered = StoredObject(1, objects[0].kind, "", "", "", "", "", TriagePriority.HIGH, report_id=1)
    with pytest.raises(NotNow, match="overtook"):
        deliverer._last_look(delivered, b"")
    waiting = replace(delivered, object_id=2)
    with pytest.raises(NotNow):  # another form of it was accepted: it is not needed any more
        deliverer._last_look(waiting, b"")


def test_what_may_leave_is_still_proven(ledger: Ledger, tmp_path: Path) -> None:
    deliver(ledger, tmp_path, [("preferred", WAITING)])
    settings = load_settings(site(tmp_path, 1))
    deliverer = Deliverer(ledger, settings, settings.destinations[0], threading.Event())
    stored = StoredObject(1, "preferred", "", "", "", "", "", TriagePriority.HIGH, report_id=1)
    with pytest.raises(NotProven, match="is gone"):  # the ledger's instance has no file behind it
        deliverer._last_look(stored, b"")
