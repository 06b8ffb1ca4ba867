"""Admission: one transaction holds the instance and its jobs, so nothing is received and then forgotten.

The hottest transaction of the node: its statements are built once, because building them costs more than running them.
"""

from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any

from sqlalchemy import Connection, Row, bindparam, case, func, literal, select, update
from sqlalchemy.dialects.postgresql import Insert as PostgresqlInsert
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import Insert as SqliteInsert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.sql.dml import ReturningInsert

from ledger.corrections import reject, settle
from ledger.database import db_now
from ledger.history import note
from ledger.queueing import FRESH, report_waits
from ledger.records import Disposition, ReceivedInstance, ReportKind, Stage
from ledger.standing import UNKNOWN_HALF, WITHDRAWING, same_patient
from ledger.states import JobState
from ledger.tables import instances, jobs, rejections, studies

NOBODYS = (Disposition.OWN_RESULT, Disposition.REJECTION_NOTE)  # their patient is not asked
HIGH_MESSAGE_PRIORITY = 1  # (0000,0700), PS3.7 9.3.1.1

_RULED_OUT = select(rejections.c.code).where(
    rejections.c.study_uid == bindparam("for_study"), rejections.c.sop_instance_uid == bindparam("sop_uid")
)
_ONE = select(literal(1).label("one")).subquery()
_KNOWN = (  # one row at least: whether the UID was rejected, and its versions so far, oldest first
    select(instances.c.id, instances.c.sha256, instances.c.version, _RULED_OUT.scalar_subquery().label("code"))
    .select_from(_ONE.outerjoin(instances, instances.c.sop_instance_uid == bindparam("sop_uid")))
    .order_by(instances.c.version)
)
_INSERT = instances.insert().returning(instances.c.id)
_ANALYSIS = jobs.insert().values(
    stage=Stage.ANALYSE,
    due_at=db_now(),
    study_uid=bindparam("for_study"),
    instance_id=bindparam("for_instance"),
    rank=bindparam("at_rank"),
    **FRESH,
)
_DROPPED = jobs.insert().values(  # rejected before it came: every image has its job, so that none is forgotten
    stage=Stage.ANALYSE,
    due_at=db_now(),
    study_uid=bindparam("for_study"),
    instance_id=bindparam("for_instance"),
    rank=1,
    **(FRESH | {"state": JobState.SUCCEEDED, "reason": "rejected"}),
    finished_at=db_now(),
)
_DUE_AT = db_now() + bindparam("after_s")
_FINAL_REPORT = jobs.insert().values(
    stage=Stage.REPORT,
    report_kind=ReportKind.FINAL,
    rank=2,
    due_at=_DUE_AT,
    study_uid=bindparam("for_study"),
    **FRESH,
)
_POSTPONE = update(jobs).where(report_waits(bindparam("for_study"), ReportKind.FINAL)).values(due_at=_DUE_AT)
_REOPEN = update(studies).where(studies.c.study_uid == bindparam("for_study")).values(completed_at=None, is_prior=False)


class AdmissionOutcome(StrEnum):
    NEW = "new"
    RESENT = "resent"  # the same bytes again: no second job
    UID_CONFLICT = "uid_conflict"  # other bytes under the same SOP Instance UID: kept beside the first


@dataclass(frozen=True)
class Admission:
    instance_id: int
    outcome: AdmissionOutcome


def admit(connection: Connection, received: ReceivedInstance, complete_after_s: float) -> Admission:
    """Write what was received and queue what follows from it. The same bytes again change nothing."""
    study = _touch_study(connection, received)  # first: its row lock puts admissions of one study in a line
    found = connection.execute(
        _KNOWN, {"sop_uid": received.sop_instance_uid, "for_study": received.study_instance_uid}
    ).all()
    known = [row for row in found if row.id is not None]
    for row in known:
        if row.sha256 == received.sha256:
            text = "The same bytes came again" + ("; newer ones stand." if row.version < known[-1].version else ".")
            note(connection, received.study_instance_uid, "instance_resent", text, row.id)
            return Admission(row.id, AdmissionOutcome.RESENT)
    version = known[-1].version + 1 if known else 1
    is_rejected = found[0].code in WITHDRAWING
    instance_id = _insert_instance(connection, received, version)
    _note_receipt(connection, received, instance_id, version, is_rejected)
    _check_patient(connection, received, study, version)
    if received.disposition is Disposition.REJECTION_NOTE:
        reject(connection, received.study_instance_uid, received.rejection, received.rejects)
    elif received.disposition is Disposition.ANALYSE and is_rejected:
        connection.execute(_DROPPED, {"for_study": received.study_instance_uid, "for_instance": instance_id})
    elif received.disposition is Disposition.ANALYSE:
        _queue(connection, received, instance_id, complete_after_s)
    return Admission(instance_id, AdmissionOutcome.UID_CONFLICT if known else AdmissionOutcome.NEW)


def _check_patient(connection: Connection, received: ReceivedInstance, study: Row[Any], version: int) -> None:
    """One patient a study. Most instances name the one that the study names already, and nothing is to be done."""
    if received.disposition in NOBODYS:
        return
    now, known = received.patient_digest, study.patient_digest
    agrees = now in ("", known) or (same_patient(now, known) and not known.startswith(UNKNOWN_HALF))
    if not agrees or study.hold or version > 1:
        settle(connection, received.study_instance_uid)


def _touch_study(connection: Connection, received: ReceivedInstance) -> Row[Any]:
    """The study's row, made or moved on."""
    own = received.disposition is Disposition.OWN_RESULT  # our own echo is no news of the study
    moment = received.received_at.timestamp()
    return connection.execute(
        _touch(connection.dialect.name, own),
        {
            "study_uid": received.study_instance_uid,
            "is_prior": received.disposition is Disposition.PRIOR,
            "first_received_at": moment,
            "last_received_at": moment,
            "patient_digest": "" if received.disposition in NOBODYS else received.patient_digest,
        },
    ).one()


@cache
def _touch(dialect: str, own: bool) -> ReturningInsert[Any]:
    """Insert the study, or move its time of last receipt on, never back."""
    if dialect == "postgresql":
        statement: PostgresqlInsert | SqliteInsert = postgresql_insert(studies)
        newest = func.greatest(statement.excluded.last_received_at, studies.c.last_received_at)
    else:
        statement = sqlite_insert(studies)
        newest = func.max(statement.excluded.last_received_at, studies.c.last_received_at)
    known = studies.c.patient_digest
    values = {
        "last_received_at": studies.c.last_received_at if own else newest,
        "patient_digest": case((known == "", statement.excluded.patient_digest), else_=known),
    }
    upsert = statement.on_conflict_do_update(index_elements=[studies.c.study_uid], set_=values)
    return upsert.returning(studies.c.patient_digest, studies.c.hold)


def _insert_instance(connection: Connection, received: ReceivedInstance, version: int) -> int:
    row = connection.execute(
        _INSERT,
        {
            "study_uid": received.study_instance_uid,
            "series_uid": received.series_instance_uid,
            "sop_class_uid": received.sop_class_uid,
            "sop_instance_uid": received.sop_instance_uid,
            "transfer_syntax_uid": received.transfer_syntax_uid,
            "modality": received.modality,
            "sha256": received.sha256,
            "size_bytes": received.size_bytes,
            "path": received.path,
            "disposition": received.disposition,
            "version": version,
            "calling_ae_title": received.calling_ae_title,
            "peer_address": received.peer_address,
            "association_id": received.association_id,
            "message_priority": received.message_priority,
            "received_at": received.received_at.timestamp(),
            "patient_digest": received.patient_digest,
        },
    )
    return int(row.scalar_one())


def _note_receipt(
    connection: Connection, received: ReceivedInstance, instance_id: int, version: int, is_rejected: bool
) -> None:
    origin = f"from {received.calling_ae_title} at {received.peer_address}"
    reasons = {
        Disposition.ANALYSE: "queued for analysis",
        Disposition.PRIOR: "an older study: kept as a prior, not flagged",
        Disposition.OWN_RESULT: "one of our own results: kept, not analysed",
        Disposition.NOT_AN_IMAGE: "not an image: kept, not analysed",
        Disposition.REJECTION_NOTE: "a rejection note",
    }
    reason = "rejected before it came: kept, not analysed" if is_rejected else reasons[received.disposition]
    text = f"{received.modality or 'An instance'} {origin}; {reason}."
    note(connection, received.study_instance_uid, "instance_received", text, instance_id)
    if version > 1:
        text = f"Other bytes came under an existing SOP Instance UID; kept beside the first as version {version}."
        note(connection, received.study_instance_uid, "uid_conflict", text, instance_id)


def _queue(connection: Connection, received: ReceivedInstance, instance_id: int, complete_after_s: float) -> None:
    study = {"for_study": received.study_instance_uid}
    rank = 0 if received.message_priority == HIGH_MESSAGE_PRIORITY else 1
    connection.execute(_ANALYSIS, study | {"for_instance": instance_id, "at_rank": rank})
    connection.execute(_REOPEN, study)
    # The quiet period begins anew with each image.
    quiet = study | {"after_s": complete_after_s}
    if connection.execute(_POSTPONE, quiet).rowcount == 0:
        connection.execute(_FINAL_REPORT, quiet)
