"""Admission: one transaction holds the instance and its jobs, so nothing is received and then forgotten.

The hottest transaction of the node: its statements are built once, because building them costs more than running them.
"""

from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any

from sqlalchemy import Connection, Row, bindparam, case, exists, func, literal, or_, select, update
from sqlalchemy.dialects.postgresql import Insert as PostgresqlInsert
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import Insert as SqliteInsert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.sql.dml import ReturningInsert

from ledger import assembly, audit, deeds
from ledger.clinical import RANK
from ledger.completion import Completion
from ledger.corrections import reject, settle
from ledger.database import db_now
from ledger.heartbeats import is_the_one
from ledger.history import note
from ledger.queueing import FRESH, queue_job, report_waits
from ledger.records import Disposition, ReceivedInstance, ReportKind, Stage
from ledger.standing import UNKNOWN_HALF, WITHDRAWING, same_patient
from ledger.states import JobState
from ledger.tables import awaited_instances, instances, jobs, rejections, stated_studies, studies

RECEIPT = "instance_received"
_BECOMES = {
    Disposition.ANALYSE: "queued for analysis",
    Disposition.PRIOR: "an older study: kept as a prior, not flagged",
    Disposition.OWN_RESULT: "one of our own results: kept, not analysed",
    Disposition.NOT_AN_IMAGE: "not an image: kept, not analysed",
    Disposition.REJECTION_NOTE: "a rejection note",
}
NOBODYS = (Disposition.OWN_RESULT, Disposition.REJECTION_NOTE)  # their patient is not asked
HIGH_MESSAGE_PRIORITY = 1  # (0000,0700), PS3.7 9.3.1.1

_RULED_OUT = select(rejections.c.code).where(
    rejections.c.study_uid == bindparam("for_study"), rejections.c.sop_instance_uid == bindparam("sop_uid")
)
_STATED = or_(
    exists().where(awaited_instances.c.sop_instance_uid == bindparam("sop_uid")),
    exists().where(stated_studies.c.study_uid == bindparam("for_study")),
)
_ONE = select(literal(1).label("one")).subquery()
_KNOWN = (  # one row at least: whether the UID was rejected, and its versions so far, oldest first
    select(
        instances.c.id,
        instances.c.sha256,
        instances.c.version,
        instances.c.path,
        instances.c.removed_at,
        _RULED_OUT.scalar_subquery().label("code"),
        _STATED.label("is_stated"),  # a sender's list of what it sent names it, or is of its study
    )
    .select_from(_ONE.outerjoin(instances, instances.c.sop_instance_uid == bindparam("sop_uid")))
    .order_by(instances.c.version)
)
_INSERT = instances.insert().returning(instances.c.id)
ANALYSIS = jobs.insert().values(
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
QUIET_UNTIL = db_now() + bindparam("after_s")
LIMIT_AT = jobs.c.queued_at + bindparam("limit_s")  # queued with the first image since the study was last open
_FINAL_REPORT = jobs.insert().values(
    stage=Stage.REPORT,
    report_kind=ReportKind.FINAL,
    rank=2,
    due_at=QUIET_UNTIL,
    due_because=bindparam("because"),
    study_uid=bindparam("for_study"),
    **FRESH,
)
_POSTPONE = (
    update(jobs)
    .where(report_waits(bindparam("for_study"), ReportKind.FINAL))
    .values(
        due_at=case((LIMIT_AT <= QUIET_UNTIL, LIMIT_AT), else_=QUIET_UNTIL),
        due_because=case((LIMIT_AT <= QUIET_UNTIL, bindparam("limit_because")), else_=bindparam("because")),
    )
)
_REOPEN = update(studies).where(studies.c.study_uid == bindparam("for_study")).values(completed_at=None, is_prior=False)


class AdmissionOutcome(StrEnum):
    NEW = "new"
    RESENT = "resent"  # the same bytes again: no second job
    UID_CONFLICT = "uid_conflict"  # other bytes under the same SOP Instance UID: kept beside the first


@dataclass(frozen=True)
class Admission:
    """path: of the file that the ledger holds for these bytes; another than the admitted one's if they are RESENT.
    fulfils: it was the last that was missing of a list in which a sender said what it sent.
    is_heartbeat: it is the node's own, and counts nowhere."""

    instance_id: int
    outcome: AdmissionOutcome
    path: str
    fulfils: bool = False
    is_heartbeat: bool = False


def admit(connection: Connection, received: ReceivedInstance, completion: Completion) -> Admission:
    """Write what was received and queue what follows from it. The same bytes again change nothing."""
    study = _touch_study(connection, received)  # first: its row lock puts admissions of one study in a line
    found = connection.execute(
        _KNOWN, {"sop_uid": received.sop_instance_uid, "for_study": received.study_instance_uid}
    ).all()
    known = [row for row in found if row.id is not None]
    is_heartbeat = bool(study.is_heartbeat) and is_the_one(connection, received)
    for row in known:
        if row.sha256 == received.sha256:
            text = "The same bytes came again" + ("; newer ones stand." if row.version < known[-1].version else ".")
            note(connection, received.study_instance_uid, "instance_resent", text, row.id)
            if not is_heartbeat:
                audit.record(connection, *deeds.receipts([(row.id, received)], AdmissionOutcome.RESENT))
            path = row.path if row.removed_at is None else _take_back(connection, received, row.id)
            return Admission(row.id, AdmissionOutcome.RESENT, path, is_heartbeat=is_heartbeat)
    version = known[-1].version + 1 if known else 1
    is_rejected = found[0].code in WITHDRAWING
    instance_id = _insert_instance(connection, received, version)
    _note_receipt(connection, received, instance_id, version, is_rejected)
    outcome = AdmissionOutcome.UID_CONFLICT if known else AdmissionOutcome.NEW
    if not is_heartbeat:
        audit.record(connection, *deeds.receipts([(instance_id, received)], outcome))
    _check_patient(connection, received, study, version)
    if received.disposition is Disposition.REJECTION_NOTE:
        reject(connection, received.study_instance_uid, received.rejection, received.rejects)
    elif received.disposition is Disposition.ANALYSE and is_rejected:
        connection.execute(_DROPPED, {"for_study": received.study_instance_uid, "for_instance": instance_id})
    elif is_heartbeat:
        _queue_heartbeat(connection, received.study_instance_uid, instance_id)
    elif received.disposition is Disposition.ANALYSE:
        _queue(connection, received, instance_id, completion)
    fulfils = bool(found[0].is_stated) and assembly.arrived(
        connection, received.study_instance_uid, received.sop_instance_uid
    )
    return Admission(instance_id, outcome, received.path, fulfils, is_heartbeat)


def _take_back(connection: Connection, received: ReceivedInstance, instance_id: int) -> str:
    """Its file went with time, and here it is again, under a name of its own: the old one may still be on its way out.
    What was said of it stands."""
    values = {"path": received.path, "size_bytes": received.size_bytes, "removed_at": None}
    values["received_at"] = received.received_at.timestamp()
    connection.execute(update(instances).where(instances.c.id == instance_id).values(**values))
    return received.path


def _check_patient(connection: Connection, received: ReceivedInstance, study: Row[Any], version: int) -> None:
    """One patient a study. Most instances name the one that the study names already, and nothing is to be done."""
    if received.disposition in NOBODYS:
        return
    if not agrees(received.patient_digest, study.patient_digest) or study.hold or version > 1:
        settle(connection, received.study_instance_uid)


def agrees(now: str, known: str) -> bool:
    """Whether an instance names the patient that its study names already, and tells no more of whose it is."""
    return now in ("", known) or (same_patient(now, known) and not known.startswith(UNKNOWN_HALF))


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
    return upsert.returning(studies.c.patient_digest, studies.c.hold, studies.c.is_heartbeat)


def _insert_instance(connection: Connection, received: ReceivedInstance, version: int) -> int:
    return int(connection.execute(_INSERT, instance_row(received, version)).scalar_one())


def instance_row(received: ReceivedInstance, version: int) -> dict[str, Any]:
    return {
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
    }


def _note_receipt(
    connection: Connection, received: ReceivedInstance, instance_id: int, version: int, is_rejected: bool
) -> None:
    why = "rejected before it came: kept, not analysed" if is_rejected else _BECOMES[received.disposition]
    note(connection, received.study_instance_uid, RECEIPT, receipt(received, why), instance_id)
    if version > 1:
        text = f"Other bytes came under an existing SOP Instance UID; kept beside the first as version {version}."
        note(connection, received.study_instance_uid, "uid_conflict", text, instance_id)


def receipt(received: ReceivedInstance, why: str = "") -> str:
    """The sentence that tells of it. why: what becomes of it, where not its disposition alone says so."""
    origin = f"from {received.calling_ae_title} at {received.peer_address}"
    return f"{received.modality or 'An instance'} {origin}; {why or _BECOMES[received.disposition]}."


def _queue(connection: Connection, received: ReceivedInstance, instance_id: int, completion: Completion) -> None:
    study = {"for_study": received.study_instance_uid}
    connection.execute(ANALYSIS, study | {"for_instance": instance_id, "at_rank": rank_of(received)})
    connection.execute(_REOPEN, study)
    # The quiet period begins anew with each image.
    quiet, limit = study | quiet_period(completion), last_resort(completion)
    if connection.execute(_POSTPONE, quiet | limit).rowcount == 0:
        connection.execute(_FINAL_REPORT, quiet)


def _queue_heartbeat(connection: Connection, study_uid: str, instance_id: int) -> None:
    """Behind everybody, whatever the message says of its priority; its report waits for nothing more."""
    queue_job(connection, Stage.ANALYSE, study_uid, RANK, instance_id=instance_id)
    queue_job(connection, Stage.REPORT, study_uid, RANK, report_kind=ReportKind.FINAL)


def rank_of(received: ReceivedInstance) -> int:
    return 0 if received.message_priority == HIGH_MESSAGE_PRIORITY else 1


def quiet_period(completion: Completion) -> dict[str, Any]:
    return {"after_s": min(completion.after_s, completion.limit_s), "because": completion.because}


def last_resort(completion: Completion) -> dict[str, Any]:
    return {"limit_s": completion.limit_s, "limit_because": completion.limit_because}
