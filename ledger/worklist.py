"""The triage list: one line a study, most urgent first."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, select

from ledger.codec import load_result, moment
from ledger.delivery_records import NOT_GONE, DeliveryState, Proof
from ledger.records import Disposition, Finding, ImageResult, ReportKind, ResultStatus, Stage, TriagePriority
from ledger.slices import Counted, is_slice, slices_marked, slices_refused, why_not_assessed
from ledger.standing import counts_now
from ledger.states import UNFINISHED, JobState
from ledger.tables import deliveries, instances, jobs, objects, reports, results, studies

_LEAST_DONE = (*NOT_GONE[::-1], DeliveryState.WAITING, DeliveryState.DELIVERED, DeliveryState.SHADOW)
_LEAST_CERTAIN = (Proof.MISSING, Proof.NONE, Proof.WAITING, Proof.UNPROVEN, Proof.FOUND, Proof.COMMITTED)


@dataclass(frozen=True)
class WorklistEntry:
    """One line of the triage list. No patient's identity."""

    study_instance_uid: str
    priority: TriagePriority | None  # None: nothing for a model to look at, or nothing looked at yet
    is_prior: bool
    is_complete: bool
    modality: str
    instances: int  # different SOP instances, our own results not counted
    uid_conflicts: int  # times that other bytes came under one of their UIDs
    pending: int  # instances still to be analysed
    findings: tuple[Finding, ...]  # the worst image's; slices, which speak together, not among them
    critical_flags: tuple[str, ...]
    recommendations: tuple[str, ...]
    not_assessed_reason: str  # why the study is not, or an image or a series of it
    first_received_at: datetime
    last_received_at: datetime
    last_image_at: datetime  # the last that was new: the same bytes again are no news
    delivered_at: datetime | None  # when the last object of the newest report was accepted everywhere
    told_at: datetime | None  # the same of the first report that rests on the last image; None: there is none yet
    deliveries: tuple[tuple[str, str], ...]  # (destination, waiting | delivered | refused | stopped | shadow)
    report_priority: TriagePriority | None
    report_kind: ReportKind | None = None  # of the newest report
    hold: str = ""  # why nothing of this study may leave; empty: nothing holds it
    proofs: tuple[tuple[str, str], ...] = ()  # (destination, the least certain Proof of the newest report)
    alarm: bool = True  # the findings' image raises the priority; False: what it has is marked, and that is all
    slices_marked: Counted = ()  # of slice models: labels
    slices_refused: Counted = ()  # reasons
    report_parked: bool = False  # a report of it was not made, and waits for a person
    is_shadow: bool = False  # its newest report was made in shadow mode: never sent


def worklist(connection: Connection, since: datetime | None, include_hidden: bool) -> list[WorklistEntry]:
    """Studies, most urgent first, then longest waiting. Hidden: those that no model is meant for."""
    query = select(studies).where(~studies.c.is_heartbeat)
    if since is not None:
        query = query.where(studies.c.last_received_at >= since.timestamp())
    rows = connection.execute(query).all()
    uids = [row.study_uid for row in rows]
    parts = _StudyParts(connection, uids)
    entries = [parts.entry(row) for row in rows]
    if not include_hidden:
        entries = [entry for entry in entries if entry.priority or entry.pending or entry.is_prior or entry.hold]
    return sorted(entries, key=_urgency)


def entry_of(connection: Connection, study_uid: str) -> WorklistEntry | None:
    """One study's line, whether the list would show it or not."""
    row = connection.execute(select(studies).where(studies.c.study_uid == study_uid)).first()
    return _StudyParts(connection, [study_uid]).entry(row) if row else None


def _urgency(entry: WorklistEntry) -> tuple[int, datetime]:
    rank = entry.priority.rank if entry.priority else len(TriagePriority)
    return rank + (10 if entry.is_prior else 0), entry.first_received_at


class _StudyParts:
    """Everything about some studies, read with one query a table."""

    def __init__(self, connection: Connection, uids: list[str]) -> None:
        self._instances = _grouped(
            connection.execute(
                select(
                    instances.c.study_uid,
                    instances.c.modality,
                    instances.c.disposition,
                    instances.c.sop_instance_uid,
                    instances.c.received_at,
                )
                .where(instances.c.study_uid.in_(uids))
                .order_by(instances.c.id)
            )
        )
        self._results = _grouped(
            connection.execute(
                select(results.c.study_uid, instances.c.series_uid, results.c.body)
                .join(instances, instances.c.id == results.c.instance_id)
                .where(results.c.study_uid.in_(uids), ~results.c.withdrawn, counts_now())
                .order_by(results.c.id)
            )
        )
        self._pending = _grouped(
            connection.execute(
                select(jobs.c.study_uid).where(
                    jobs.c.study_uid.in_(uids), jobs.c.stage == Stage.ANALYSE, jobs.c.state.in_(UNFINISHED)
                )
            )
        )
        parked = and_(jobs.c.stage == Stage.REPORT, jobs.c.state == JobState.PARKED)
        self._parked = _grouped(connection.execute(select(jobs.c.study_uid).where(jobs.c.study_uid.in_(uids), parked)))
        self._deliveries = _grouped(
            connection.execute(
                select(
                    reports.c.study_uid,
                    reports.c.id.label("report_id"),
                    reports.c.priority,
                    reports.c.kind,
                    reports.c.is_shadow,
                    reports.c.last_byte_at,
                    deliveries.c.destination,
                    deliveries.c.state,
                    deliveries.c.proof,
                    deliveries.c.changed_at,
                )
                .join(objects, objects.c.report_id == reports.c.id)
                .outerjoin(deliveries, deliveries.c.object_id == objects.c.id)
                .where(reports.c.study_uid.in_(uids))
                .order_by(reports.c.id, deliveries.c.destination)
            )
        )

    def entry(self, study: Row[Any]) -> WorklistEntry:
        rows = self._instances.get(study.study_uid, [])
        own = [row for row in rows if row.disposition != Disposition.OWN_RESULT]
        uids = {row.sop_instance_uid for row in own}
        found = [(row.series_uid, load_result(row.body)) for row in self._results.get(study.study_uid, [])]
        said = [result for _, result in found]
        worst = _worst([result for result in said if not is_slice(result)])
        newest = self._newest_report(study.study_uid)
        sent = _sent(newest)
        last_image_at = moment(max((row.received_at for row in own), default=study.first_received_at))
        return WorklistEntry(
            study_instance_uid=study.study_uid,
            priority=TriagePriority(study.priority) if study.priority else None,
            is_prior=study.is_prior,
            is_complete=study.completed_at is not None or study.is_prior,
            modality="/".join(dict.fromkeys(row.modality for row in own)),
            instances=len(uids),
            uid_conflicts=len(own) - len(uids),
            pending=len(self._pending.get(study.study_uid, [])),
            findings=worst.findings if worst else (),
            alarm=worst is None or worst.priority is not TriagePriority.LOW,
            slices_marked=slices_marked(found),
            slices_refused=slices_refused(found),
            critical_flags=tuple(dict.fromkeys(flag for result in said for flag in result.critical_flags)),
            recommendations=worst.recommendations if worst else (),
            not_assessed_reason=why_not_assessed(found),
            first_received_at=moment(study.first_received_at),
            last_received_at=moment(study.last_received_at),
            last_image_at=last_image_at,
            delivered_at=_all_delivered_at(sent),
            told_at=_all_delivered_at(_sent(self._first_report(study.study_uid, last_image_at))),
            deliveries=_by_destination(sent, "state", _LEAST_DONE),
            report_priority=TriagePriority(newest[0].priority) if newest else None,
            report_kind=ReportKind(newest[0].kind) if newest else None,
            hold=study.hold,
            proofs=_by_destination(sent, "proof", _LEAST_CERTAIN),
            report_parked=study.study_uid in self._parked,
            is_shadow=bool(newest and newest[0].is_shadow),
        )

    def _newest_report(self, study_uid: str) -> list[Row[Any]]:
        rows = self._deliveries.get(study_uid, [])
        return [row for row in rows if row.report_id == rows[-1].report_id]

    def _first_report(self, study_uid: str, last_image_at: datetime) -> list[Row[Any]]:
        """The first that rests on the last image and repeats none (ledger/slo.py)."""
        rows = self._deliveries.get(study_uid, [])
        new = [row for row in rows if row.last_byte_at is not None and moment(row.last_byte_at) >= last_image_at]
        return [row for row in new if row.report_id == new[0].report_id]


def _grouped(rows: Iterable[Row[Any]]) -> dict[str, list[Row[Any]]]:
    groups: dict[str, list[Row[Any]]] = {}
    for row in rows:
        groups.setdefault(row.study_uid, []).append(row)
    return groups


def _sent(rows: list[Row[Any]]) -> list[Row[Any]]:
    return [row for row in rows if row.destination and row.state != DeliveryState.NOT_NEEDED]


def _worst(said: list[ImageResult]) -> ImageResult | None:
    """The most urgent image that a model judged; the first of equals by its highest probability."""
    judged = [result for result in said if result.status is ResultStatus.ANALYSED and result.priority is not None]
    return min(judged, key=lambda result: result.urgency, default=None)


def _all_delivered_at(rows: list[Row[Any]]) -> datetime | None:
    if not rows or any(row.state != DeliveryState.DELIVERED for row in rows):
        return None
    return moment(max(row.changed_at for row in rows))


def _by_destination(
    rows: list[Row[Any]], name: str, order: Sequence[DeliveryState] | Sequence[Proof]
) -> tuple[tuple[str, str], ...]:
    """Each destination, and of the column `name` what comes first in `order` of all that its rows have."""
    found: dict[str, str] = {}
    for row in rows:
        value = getattr(row, name)
        found[row.destination] = min(found.get(row.destination, value), value, key=order.index)
    return tuple(found.items())
