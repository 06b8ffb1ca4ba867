"""A real ledger with instances in it, without a network."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path

from ledger.ledger import Ledger
from ledger.records import (
    ActivationMap,
    Code,
    Disposition,
    Finding,
    ImageResult,
    ModelIdentity,
    ReceivedInstance,
    ResultStatus,
    TriagePriority,
)
from ledger.store import Store

PNEUMONIA = Code("233604007", "SCT", "Pneumonia")
MODEL = ModelIdentity("invented", "1.0.0", "0" * 64, 50, "sd over 50 masked heads")


def open_fresh(folder: Path) -> Ledger:
    """A new SQLite ledger below `folder`."""
    return Ledger.open(f"sqlite:///{folder / 'ledger.sqlite'}", Store(folder / "store"))


def admit(ledger: Ledger, number: int = 1, study: int | None = None, disposition: Disposition = Disposition.ANALYSE,
          complete_after_s: float = 20.0) -> ReceivedInstance:  # fmt: skip
    """A stored instance of invented bytes, admitted; UIDs from the numbers."""
    content = f"instance {number}".encode()
    digest = hashlib.sha256(content).hexdigest()
    received = ReceivedInstance(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.1.1",
        sop_instance_uid=f"2.25.{1000 + number}",
        series_instance_uid=f"2.25.{2000 + number}",
        study_instance_uid=f"2.25.{3000 + (number if study is None else study)}",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        modality="DX",
        sha256=digest,
        size_bytes=len(content),
        path=ledger.store.put("instances", digest, ".dcm", content),
        disposition=disposition,
        calling_ae_title="MODALITY",
        peer_address="127.0.0.1",
        association_id="a1",
        message_priority=0,
        received_at=datetime.now(UTC),
    )
    ledger.admit(received, complete_after_s)
    return received


def analysed(probability: float = 0.93, priority: TriagePriority = TriagePriority.HIGH) -> ImageResult:
    """What an invented model says of one image."""
    finding = Finding(
        label="pneumonia",
        code=PNEUMONIA,
        score=probability,
        probability=probability,
        probability_sd=0.04,
        mutual_information=0.01,
        present=probability >= 0.5,
        in_doubt=False,
        operating_point=0.5,
        high_operating_point=0.8,
        activation=ActivationMap(((0.0, 1.0), (0.5, 0.2)), (0.0, 0.0, 256.0, 256.0)),
    )
    return ImageResult(
        ResultStatus.ANALYSED, "", "", priority, MODEL, (finding,),
        recommendations=("Read with priority.",), source_rows=256, source_columns=256,
    )  # fmt: skip
