"""Study findings by hand: what the ledger would hand to the result writer, over real stored files."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset

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
    ResultObject,
    ResultStatus,
    SentReference,
    StudyFindings,
    TriagePriority,
    most_urgent,
)
from ledger.store import Store
from tests.support.dx import make_dx

PNEUMONIA = Code("233604007", "SCT", "Pneumonia")
PNEUMOTHORAX = Code("36118008", "SCT", "Pneumothorax")
LUNG = Code("39607008", "SCT", "Lung")
REPORTED_AT = datetime(2026, 11, 20, 3, 4, 5, 678901, tzinfo=UTC)
MODEL = ModelIdentity("chest-pneumonia", "1.0.0", "ab" * 32, 50, "sd over 50 masked heads")
OTHER_MODEL = ModelIdentity("chest-pneumothorax", "0.2.0", "cd" * 32, 50, "sd over 50 masked heads")


def blob(box: tuple[float, float, float, float] = (0.0, 0.0, 256.0, 256.0), peak: float = 6.0) -> ActivationMap:
    """Evidence in the right lower part, counter-evidence around it, on a 7x7 grid."""
    y, x = np.mgrid[0:7, 0:7]
    values = peak * np.exp(-((y - 4.2) ** 2 + (x - 1.8) ** 2) / 2.0) - 0.8
    return ActivationMap(tuple(tuple(float(v) for v in row) for row in values), box)


def finding(label: str = "pneumonia", probability: float = 0.931, sd: float = 0.03, **changes: object) -> Finding:
    values: dict[str, object] = {
        "label": label,
        "code": PNEUMONIA if label == "pneumonia" else PNEUMOTHORAX,
        "score": probability,
        "probability": probability,
        "probability_sd": sd,
        "mutual_information": 0.01,
        "present": probability >= 0.5,
        "in_doubt": abs(probability - 0.5) < 0.1 or sd > 0.15,
        "operating_point": 0.5,
        "high_operating_point": 0.8,
        "site": LUNG,
        "activation": blob(),
    }
    return Finding(**(values | changes))  # type: ignore[arg-type]


def analysed(
    *findings: Finding,
    priority: TriagePriority = TriagePriority.HIGH,
    model: ModelIdentity = MODEL,
    display_path: str | None = None,
    recommendations: tuple[str, ...] = ("Read with priority.",),
    critical_flags: tuple[str, ...] = (),
) -> ImageResult:
    return ImageResult(
        status=ResultStatus.ANALYSED,
        reason="",
        reason_code="",
        priority=priority,
        model=model,
        findings=findings or (finding(),),
        critical_flags=critical_flags,
        recommendations=recommendations,
        duration_ms=12.0,
        display_path=display_path,
        source_rows=256,
        source_columns=256,
        settings_hash="00" * 32,
        computed_by="cpu float32",
        degraded=True,
    )


def not_assessed(reason: str = "the patient's age is unknown", code: str = "age_unknown") -> ImageResult:
    return ImageResult(
        status=ResultStatus.NOT_ASSESSED,
        reason=reason,
        reason_code=code,
        priority=TriagePriority.NOT_ASSESSED,
        model=MODEL,
        recommendations=("The model could not look at this image: read as without triage.",),
        settings_hash="00" * 32,
    )


def keep(ds: Dataset, store: Store) -> InstanceRef:
    """Store the data set as a Part 10 file, as the receiver would, and refer to it."""
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return keep_bytes(buffer.getvalue(), ds, store)


def keep_bytes(content: bytes, ds: Dataset, store: Store) -> InstanceRef:
    """Store a Part 10 file as it is; `ds` is what it holds."""
    path = store.put("instances", hashlib.sha256(content).hexdigest(), ".dcm", content)
    return InstanceRef(
        instance_id=1,
        sop_class_uid=str(ds.SOPClassUID),
        sop_instance_uid=str(ds.SOPInstanceUID),
        series_instance_uid=str(ds.SeriesInstanceUID),
        study_instance_uid=str(ds.StudyInstanceUID),
        transfer_syntax_uid=str(ds.file_meta.TransferSyntaxUID),
        modality=str(ds.get("Modality", "")),
        sha256=dataset_sha256(store.path(path)),
        path=path,
        received_at=REPORTED_AT,
    )


def picture(store: Store, ds: Dataset) -> str:
    """The display picture of a data set of `make_dx`, stored."""
    grey = (np.frombuffer(ds.PixelData, "<u2").reshape(ds.Rows, ds.Columns) // 16).astype(np.uint8)
    buffer = BytesIO()
    Image.fromarray(grey).save(buffer, "PNG")
    content = buffer.getvalue()
    return store.put("pictures", hashlib.sha256(content).hexdigest(), ".png", content)


def new_store(folder: Path) -> Store:
    """Without waiting for a disk: of what is stored here nothing has to outlive a test."""
    store = Store(folder / "store", fsync=lambda descriptor: None)
    store.prepare()
    return store


def study(
    *looked_at: tuple[InstanceRef, Sequence[ImageResult]],
    kind: ReportKind = ReportKind.FINAL,
    predecessors: tuple[SentReference, ...] = (),
) -> StudyFindings:
    """Worst image decides, as in the ledger."""
    priorities = [r.priority for _, results in looked_at for r in results if r.priority is not None]
    return StudyFindings(
        study_instance_uid=looked_at[0][0].study_instance_uid,
        kind=kind,
        priority=most_urgent(priorities),
        looked_at=tuple(InstanceResults(instance, tuple(results)) for instance, results in looked_at),
        reported_at=REPORTED_AT,
        predecessors=predecessors,
    )


def preferred(made: Sequence[ResultObject]) -> list[ResultObject]:
    """What a destination gets that accepts every class: of each choice the first."""
    return [item for item in made if item.preference == 0]


def flagged_study(store: Store, ds: Dataset | None = None, **result: object) -> StudyFindings:
    """One stored DX with one HIGH result, its picture stored too."""
    source = make_dx() if ds is None else ds
    shown = picture(store, source)
    return study((keep(source, store), [analysed(display_path=shown, **result)]))  # type: ignore[arg-type]
