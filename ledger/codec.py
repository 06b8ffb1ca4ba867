"""Records to JSON and rows to records."""

from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Row

from ledger.clinical import RANK
from ledger.records import ImageResult, InstanceRef, Job, ReportKind, Stage

_RESULT: TypeAdapter[ImageResult] = TypeAdapter(ImageResult)

INSTANCE_COLUMNS = (
    "sop_class_uid",
    "sop_instance_uid",
    "transfer_syntax_uid",
    "modality",
    "sha256",
    "path",
)


def dump_result(result: ImageResult) -> str:
    return _RESULT.dump_json(result).decode()


def load_result(body: str) -> ImageResult:
    return _RESULT.validate_json(body)


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def moment_or_none(seconds: float | None) -> datetime | None:
    return None if seconds is None else moment(seconds)


def instance_ref(row: Row[Any]) -> InstanceRef:
    """From a row of `instances`."""
    return InstanceRef(
        instance_id=row.id,
        series_instance_uid=row.series_uid,
        study_instance_uid=row.study_uid,
        received_at=moment(row.received_at),
        **{name: getattr(row, name) for name in INSTANCE_COLUMNS},
    )


def job_record(row: Row[Any], instance: InstanceRef | None) -> Job:
    """From a row of `jobs` that has just been claimed."""
    return Job(
        job_id=row.id,
        stage=Stage(row.stage),
        study_instance_uid=row.study_uid,
        generation=row.generation,
        attempt=row.attempts,
        queued_at=moment(row.queued_at),
        lease_expires_at=moment(row.lease_expires_at),
        instance=instance,
        report_kind=ReportKind(row.report_kind) if row.report_kind else None,
        report_id=row.report_id,
        destination=row.destination,
        cause=row.cause,
        is_heartbeat=row.rank == RANK,
    )
