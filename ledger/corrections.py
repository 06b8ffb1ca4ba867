"""What a correction sets going: a study of two patients is held until they agree, rejected images count no more.

A held study is neither reported nor delivered, and no adapter hears of it. What it said before is proven all the same.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, and_, exists, or_, select, update

from ledger.database import db_now
from ledger.history import note
from ledger.queueing import dismiss, queue_report
from ledger.records import ReportKind, Stage
from ledger.standing import (
    WITHDRAWING,
    patient_digest_of,
    patients_of,
    restate_priority,
    same_patient,
    standing,
)
from ledger.states import IDLE, UNFINISHED
from ledger.succession import kind_of_correction, last_report, overtake, rests_on_what_stands
from ledger.tables import instances, jobs, rejections, results, studies

CONFLICT = "Images of this study name different patients: nothing leaves until a correction makes them agree."
CORRECTED = "The patient of this study was corrected."
REJECTED = "Images that the earlier report rests on were rejected."
ALL_REJECTED = "The images that it rests on were rejected."


def settle(connection: Connection, study_uid: str) -> None:
    """Hold the study, or let it go, by what its standing instances say. Study locked."""
    rows = standing(connection, study_uid)
    patients = patients_of(rows)
    study = studies.c.study_uid == study_uid
    was = connection.execute(select(studies.c.hold, studies.c.patient_digest).where(study)).one()
    if len(patients) > 1:
        if not was.hold:
            connection.execute(update(studies).where(study).values(hold=CONFLICT))
            note(connection, study_uid, "study_held", CONFLICT)
        return
    now = patient_digest_of(rows) or was.patient_digest
    if (was.hold, was.patient_digest) != ("", now):
        connection.execute(update(studies).where(study).values(hold="", patient_digest=now))
    if was.hold:
        note(connection, study_uid, "study_let_go", "All images of this study name one patient again.")
    before = last_report(connection, study_uid)  # asked before anything is overtaken
    overtake(connection, study_uid, "Images that it rests on were corrected or rejected.")
    corrected = was.hold or not same_patient(was.patient_digest, now)
    if corrected and before is not None:
        queue_report(connection, study_uid, kind_of_correction(connection, study_uid), CORRECTED)


def reject(connection: Connection, study_uid: str, code: str, sop_instance_uids: Sequence[str]) -> None:
    """Take a rejection note to heart: instances of its study that it names count no more, and a report that rests on
    them is made anew or withdrawn. The note may come before what it rejects. Study locked."""
    fresh = _keep(connection, study_uid, code, sop_instance_uids)
    count = "1 instance" if len(sop_instance_uids) == 1 else f"{len(sop_instance_uids)} instances"
    effect = "they count no more" if code in WITHDRAWING else "nothing is withdrawn for it"
    note(connection, study_uid, "instances_rejected", f"A rejection note ({code}) names {count}: {effect}.")
    if code not in WITHDRAWING or not fresh:
        return
    before = last_report(connection, study_uid)  # asked before anything is overtaken
    _drop_analyses(connection, study_uid, fresh)
    settle(connection, study_uid)
    left = _anything_left(connection, study_uid)
    if not left:
        restate_priority(connection, study_uid, None, "its images were rejected.")
    if before is None or before.kind == ReportKind.WITHDRAWN or rests_on_what_stands(connection, before.id, study_uid):
        return
    if left:
        queue_report(connection, study_uid, kind_of_correction(connection, study_uid), REJECTED)
    else:
        queue_report(connection, study_uid, ReportKind.WITHDRAWN, ALL_REJECTED)


def _keep(connection: Connection, study_uid: str, code: str, sop_instance_uids: Sequence[str]) -> list[str]:
    """Write the rejections down; returns those that are news: not known, or known for a reason that did not count."""
    rows = connection.execute(select(rejections).where(rejections.c.study_uid == study_uid))
    known = {row.sop_instance_uid: row.code for row in rows}
    named = list(dict.fromkeys(sop_instance_uids))
    fresh = [uid for uid in named if uid not in known]
    graver = [uid for uid in named if uid in known and code in WITHDRAWING and known[uid] not in WITHDRAWING]
    if fresh:
        row = {"study_uid": study_uid, "code": code}
        connection.execute(
            rejections.insert().values(rejected_at=db_now()), [row | {"sop_instance_uid": uid} for uid in fresh]
        )
    for uid in graver:
        one = and_(rejections.c.study_uid == study_uid, rejections.c.sop_instance_uid == uid)
        connection.execute(update(rejections).where(one).values(code=code, rejected_at=db_now()))
    return fresh + graver


def _drop_analyses(connection: Connection, study_uid: str, sop_instance_uids: Sequence[str]) -> None:
    """Rejected images that still wait are not looked at."""
    rejected = set(sop_instance_uids)
    waiting = and_(jobs.c.study_uid == study_uid, jobs.c.stage == Stage.ANALYSE, jobs.c.state.in_(IDLE))
    query = select(jobs.c.id, instances.c.sop_instance_uid).join(instances, instances.c.id == jobs.c.instance_id)
    for row in connection.execute(query.where(waiting)).all():
        if row.sop_instance_uid in rejected:
            dismiss(connection, and_(jobs.c.id == row.id, waiting), "rejected")


def _anything_left(connection: Connection, study_uid: str) -> bool:
    """Whether a standing instance has something said of it by a model, or waits for it."""
    ids = [row.id for row in standing(connection, study_uid)]
    said = exists().where(results.c.instance_id.in_(ids), results.c.priority.is_not(None), ~results.c.withdrawn)
    coming = exists().where(jobs.c.instance_id.in_(ids), jobs.c.stage == Stage.ANALYSE, jobs.c.state.in_(UNFINISHED))
    return bool(connection.execute(select(or_(said, coming))).scalar())
