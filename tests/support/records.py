"""Records to feed a ledger with, and what to ask of it."""

import hashlib
from datetime import UTC, datetime
from itertools import count

from ledger.records import (
    Code,
    Disposition,
    Finding,
    ImageResult,
    ModelIdentity,
    ReceivedInstance,
    ResultObject,
    ResultStatus,
    TriagePriority,
)
from ledger.store import Store

_number = count(1)
PNEUMONIA = Code("233604007", "SCT", "Pneumonia")
MODEL = ModelIdentity("chest-pneumonia", "1.0.0", "d" * 64, 50, "sd over 50 masked heads")


def received(study_uid: str = "1.2.3", **changes: object) -> ReceivedInstance:
    """A new chest radiograph of `study_uid`; no file is behind it unless `path` names one."""
    number = next(_number)
    content = hashlib.sha256(str(number).encode()).hexdigest()
    values: dict[str, object] = {
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.1.1",
        "sop_instance_uid": f"1.2.3.4.{number}",
        "series_instance_uid": f"{study_uid}.1",
        "study_instance_uid": study_uid,
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "modality": "DX",
        "sha256": content,
        "size_bytes": 1000,
        "path": f"instances/{content[:2]}/{content}.dcm",
        "disposition": Disposition.ANALYSE,
        "calling_ae_title": "MODALITY",
        "peer_address": "127.0.0.1",
        "association_id": "a1",
        "message_priority": 0,
        "received_at": datetime.now(UTC),
    }
    return ReceivedInstance(**(values | changes))  # type: ignore[arg-type]


def judged(priority: TriagePriority, probability: float = 0.9, *, in_doubt: bool = False) -> ImageResult:
    finding = Finding(
        label="pneumonia",
        code=PNEUMONIA,
        score=probability,
        probability=probability,
        probability_sd=0.02,
        mutual_information=0.01,
        present=probability >= 0.5,
        in_doubt=in_doubt,
        operating_point=0.5,
        high_operating_point=0.8,
    )
    return ImageResult(ResultStatus.ANALYSED, "", "", priority, MODEL, (finding,))


def refused(reason_code: str = "age_unknown") -> ImageResult:
    return ImageResult(
        ResultStatus.NOT_ASSESSED, "The age is not known.", reason_code, TriagePriority.NOT_ASSESSED, MODEL
    )


def not_applicable() -> ImageResult:
    return ImageResult(ResultStatus.NOT_APPLICABLE, "No model reads MR.", "modality", None)


def stored_object(store: Store, kind: str = "text_sr") -> tuple[ResultObject, str]:
    """A result object with content of its own, stored."""
    number = next(_number)
    content = f"object {number}".encode()
    made = ResultObject(kind, "1.2.840.10008.5.1.4.1.1.88.22", f"2.25.{number}", f"2.25.9{number}", "1.2", content)
    return made, store.put("objects", hashlib.sha256(content).hexdigest(), ".dcm", content)
