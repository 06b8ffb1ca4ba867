"""A ledger as a day leaves it, for benchmarks of the page: studies of invented children, looked at and reported."""

import hashlib
from dataclasses import replace
from io import BytesIO
from typing import Final

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset

from ledger.completion import Completion
from ledger.delivery_records import DeliveryOutcome, DeliveryState
from ledger.ledger import Ledger
from ledger.records import ActivationMap, ImageResult, Job, ResultObject, Stage, TriagePriority
from tests.support.ledgers import all_to, analysed
from tests.support.records import received, refused, stored_object

PLACES: Final = ("PACS@127.0.0.1:104", "ARCHIVE@127.0.0.1:105")
HIGH, MEDIUM, LOW = TriagePriority.HIGH, TriagePriority.MEDIUM, TriagePriority.LOW
SOON_S: Final = 0.0
DX: Final = "1.2.840.10008.5.1.4.1.1.1.1"


def fill(ledger: Ledger, count: int, images: int = 1) -> None:
    """`count` studies of `images` each, every one reported; what the archive is to get still waits."""
    for number in range(count):
        add(ledger, number, images)
    while jobs := ledger.claim(Stage.DELIVER, "page", 100, 60.0, PLACES[0]):
        for job in jobs:
            deliver(ledger, job)


def add(ledger: Ledger, number: int, images: int = 1) -> None:
    """One more: received, looked at, and its final report made."""
    for image in range(images):
        _receive(ledger, number, image)
    while jobs := ledger.claim(Stage.ANALYSE, "page", 100, 60.0):
        for job in jobs:
            ledger.finish_analysis(job, [_said(number)])
    while jobs := ledger.claim(Stage.REPORT, "page", 100, 60.0):
        for job in jobs:
            _report(ledger, job)


def deliver(ledger: Ledger, job: Job) -> None:
    for stored in ledger.undelivered(job):
        ledger.record_delivery(job, DeliveryOutcome(stored.object_id, DeliveryState.DELIVERED, 0, "", "as it was"))
    ledger.finish_delivery(job)


def _receive(ledger: Ledger, number: int, image: int) -> None:
    study = f"1.2.826.0.1.3680043.8.498.{10**12 + number}"
    content = header(study, number, image)
    digest = hashlib.sha256(content).hexdigest()
    path = ledger.store.put("instances", digest, ".dcm", content)
    ledger.admit(
        received(
            study, sop_instance_uid=f"{study}.1.{image}", sha256=digest, path=path, size_bytes=len(content),
            patient_digest=f"{number:064}",
        ),
        Completion(SOON_S),
    )  # fmt: skip


def header(study: str, number: int, image: int) -> bytes:
    """A radiograph's header, of an invented child."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = DX, f"{study}.1.{image}"
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = DX, f"{study}.1.{image}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.Modality = study, f"{study}.1", "DX"
    ds.StudyDate, ds.StudyTime, ds.AccessionNumber = "20261121", "101112", f"A{number:07}"
    ds.PatientName, ds.PatientID = f"Invented^Child {number}", f"P{number:06}"
    ds.PatientBirthDate, ds.PatientSex = "20220203", "O"
    written = BytesIO()
    FileDataset(written, ds, file_meta=meta, preamble=b"\0" * 128).save_as(written, enforce_file_format=True)
    return written.getvalue()


def _said(number: int) -> ImageResult:
    """One in ten is flagged, one in twenty is not assessed."""
    if number % 20 == 5:
        return refused()
    priority, probability = (HIGH, 0.93) if number % 10 == 0 else (MEDIUM, 0.6) if number % 10 == 1 else (LOW, 0.04)
    result = analysed(probability, priority)
    cells = tuple(tuple(float(one) for one in row) for row in np.random.default_rng(number).normal(0, 3, (7, 7)))
    activation = ActivationMap(cells, (0.0, 0.0, 2000.0, 2000.0))
    return replace(result, findings=(replace(result.findings[0], activation=activation),))


def _report(ledger: Ledger, job: Job) -> None:
    findings = ledger.study_findings(job)
    made: list[tuple[ResultObject, str]] = []
    for kind in ("measurement_sr", "secondary_capture") if findings else ():
        made.append(stored_object(ledger.store, kind))
    ledger.finish_report(job, findings, made, all_to(made, PLACES))
