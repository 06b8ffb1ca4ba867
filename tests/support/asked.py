"""Reports for a destination, up to the point where it is asked whether it holds them."""

import hashlib
from collections.abc import Sequence
from io import BytesIO

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from ledger.completion import Completion
from ledger.delivery_records import DeliveryOutcome, DeliveryState
from ledger.ledger import Ledger
from ledger.records import Job, ResultObject, Stage, TriagePriority
from tests.support.ledgers import all_to
from tests.support.records import judged, received, stored_object

Made = tuple[ResultObject, str]


def report(ledger: Ledger, destination: str, study_uid: str, made: Sequence[Made]) -> None:
    """A report of these objects waits for the destination."""
    ledger.admit(received(study_uid), Completion(0.001))
    [job] = ledger.claim(Stage.ANALYSE, "test", 1, 60)
    ledger.finish_analysis(job, [judged(TriagePriority.HIGH, 0.9)])
    [job] = ledger.claim(Stage.REPORT, "test", 1, 60)
    ledger.finish_report(job, ledger.study_findings(job), made, all_to(made, [destination]))


def queue_report(ledger: Ledger, destination: str, study_uid: str) -> None:
    """Three small documents of one study, in two series, wait for the destination."""
    report(ledger, destination, study_uid, [_document(ledger, study_uid, n) for n in (1, 2, 3)])


def _document(ledger: Ledger, study_uid: str, number: int) -> Made:
    document = Dataset()
    document.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.22"
    document.SOPInstanceUID = f"{study_uid}.9.{number}"
    document.StudyDate = document.ContentDate = "20261121"
    document.StudyTime = document.ContentTime = "080000"
    document.AccessionNumber = document.ReferringPhysicianName = document.StudyID = ""
    document.Modality = "SR"
    document.PatientName = document.PatientID = "PROOF"
    document.PatientBirthDate = document.PatientSex = ""
    document.StudyInstanceUID = study_uid
    document.SeriesInstanceUID = f"{study_uid}.8.{min(number, 2)}"
    document.SeriesNumber, document.InstanceNumber = min(number, 2), number
    document.file_meta = FileMetaDataset()
    document.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = BytesIO()
    document.save_as(file, enforce_file_format=True)
    content = file.getvalue()
    path = ledger.store.put("objects", hashlib.sha256(content).hexdigest(), ".dcm", content)
    series = str(document.SeriesInstanceUID)
    made = ResultObject(
        "text_sr", document.SOPClassUID, document.SOPInstanceUID, series, ExplicitVRLittleEndian, content
    )
    return made, path


def accepted(ledger: Ledger, destination: str, study_uid: str = "1.2.3", objects: int = 2) -> Job:
    """The claimed proof job of a report that was accepted."""
    report(ledger, destination, study_uid, [stored_object(ledger.store) for _ in range(objects)])
    [delivery] = ledger.claim(Stage.DELIVER, "test", 1, 60, destination)
    for item in ledger.undelivered(delivery):
        ledger.record_delivery(delivery, DeliveryOutcome(item.object_id, DeliveryState.DELIVERED, 0, ""))
    ledger.finish_delivery(delivery, 0.0)
    [proof] = ledger.claim(Stage.PROVE, "test", 1, 60, destination)
    return proof


def asked_to_commit(
    ledger: Ledger, destination: str, transaction_uid: str, addresses: Sequence[str] = ()
) -> tuple[Job, list[str]]:
    """The proof job and the SOP Instance UIDs that the destination was asked to commit."""
    job = accepted(ledger, destination)
    uids = [item.sop_instance_uid for item in ledger.unproven(job)]
    ledger.commitment_asked(destination, transaction_uid, [(job, uids)], addresses)
    ledger.commitment_accepted(transaction_uid)
    return job, uids
