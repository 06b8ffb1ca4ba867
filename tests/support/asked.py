"""A report that a destination accepted, up to the point where it is asked whether it holds it."""

from ledger.ledger import Ledger
from ledger.records import DeliveryOutcome, DeliveryState, Job, Stage, TriagePriority
from tests.support.ledgers import all_to
from tests.support.records import judged, received, stored_object


def accepted(ledger: Ledger, destination: str, study_uid: str = "1.2.3", objects: int = 2) -> Job:
    """Its proof job, claimed."""
    ledger.admit(received(study_uid), 0.001)
    [job] = ledger.claim(Stage.ANALYSE, "test", 1, 60)
    ledger.finish_analysis(job, [judged(TriagePriority.HIGH, 0.9)])
    [job] = ledger.claim(Stage.REPORT, "test", 1, 60)
    made = [stored_object(ledger.store) for _ in range(objects)]
    ledger.finish_report(job, ledger.study_findings(job), made, all_to(made, [destination]))
    [delivery] = ledger.claim(Stage.DELIVER, "test", 1, 60, destination)
    for item in ledger.undelivered(delivery):
        ledger.record_delivery(delivery, DeliveryOutcome(item.object_id, DeliveryState.DELIVERED, 0, ""))
    ledger.finish_delivery(delivery, 0.0)
    [proof] = ledger.claim(Stage.PROVE, "test", 1, 60, destination)
    return proof


def asked_to_commit(ledger: Ledger, destination: str, transaction_uid: str) -> tuple[Job, list[str]]:
    """The proof job and the SOP Instance UIDs that the destination was asked to commit."""
    job = accepted(ledger, destination)
    uids = [item.sop_instance_uid for item in ledger.unproven(job)]
    ledger.commitment_asked(destination, transaction_uid, [(job, uids)])
    ledger.commitment_accepted(transaction_uid)
    return job, uids
