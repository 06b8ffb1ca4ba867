"""Build one throwaway report: the first patient does not pay for lazy imports and tables, about half a second."""

import tempfile
from datetime import UTC, datetime
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from config.settings import Settings
from ledger.reconcile import dataset_sha256
from ledger.records import (
    ActivationMap,
    Code,
    Finding,
    ImageResult,
    InstanceRef,
    InstanceResults,
    ModelIdentity,
    ReportKind,
    ResultStatus,
    StudyFindings,
    TriagePriority,
)
from ledger.store import Store
from sr_writer.build import build_objects, plan_of
from sr_writer.profiles import plain

UID = "2.25.1"  # of an installation, a study, a series and an instance that exist nowhere
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


def warm_up(settings: Settings) -> None:
    """Go once through everything that a HIGH report needs, for every destination; nothing of it is kept."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        (store.root / "instances").mkdir()
        path = "instances/source.dcm"
        _source().save_as(store.path(path), enforce_file_format=True)
        findings = _findings(path, dataset_sha256(store.path(path)))
        for plan in {plan_of(destination, findings) for destination in settings.destinations or (plain(),)}:
            build_objects(findings, store, settings, UID, plan)


def _source() -> Dataset:
    source = Dataset()
    source.file_meta = FileMetaDataset()
    source.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    source.SOPClassUID = DigitalXRayImageStorageForPresentation
    source.SOPInstanceUID = source.StudyInstanceUID = source.SeriesInstanceUID = UID
    source.Modality, source.Rows, source.Columns = "DX", 64, 64
    return source


def _findings(path: str, sha256: str) -> StudyFindings:
    finding = Finding(
        label="finding",
        code=Code("1", "99OPENTRIAGE", "Finding"),
        score=0.9,
        probability=0.9,
        probability_sd=0.01,
        mutual_information=0.0,
        present=True,
        in_doubt=False,
        operating_point=0.5,
        high_operating_point=0.8,
        activation=ActivationMap(((0.0, 1.0), (0.0, 0.0)), (0.0, 0.0, 64.0, 64.0)),
    )
    result = ImageResult(
        status=ResultStatus.ANALYSED,
        reason="",
        reason_code="",
        priority=TriagePriority.HIGH,
        model=ModelIdentity("warm-up", "1", "0" * 64, 1, "none"),
        findings=(finding,),
        source_rows=64,
        source_columns=64,
    )
    instance = InstanceRef(
        0, DigitalXRayImageStorageForPresentation, UID, UID, UID, ExplicitVRLittleEndian, "DX", sha256, path, EPOCH
    )
    looked_at = (InstanceResults(instance, (result,)),)
    return StudyFindings(UID, ReportKind.FINAL, TriagePriority.HIGH, looked_at, EPOCH)
