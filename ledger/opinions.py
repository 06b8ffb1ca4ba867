"""What readers said of findings: they agree or they do not. The newest word of each person holds; nothing is erased."""

from collections.abc import Collection, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, select

from ledger import audit
from ledger.audit import AuditEvent, AuditKind
from ledger.codec import load_result, moment
from ledger.database import db_now, transaction
from ledger.history import note
from ledger.questions import Questions
from ledger.records import Finding
from ledger.slices import is_slice
from ledger.standing import counts_now
from ledger.tables import instances, opinions, results

Key = tuple[int, str, str, str]  # instance, model, version, label


@dataclass(frozen=True)
class Judged:
    """Which statement of which model about which image."""

    study_uid: str
    instance_id: int
    model: str
    version: str
    label: str

    @property
    def key(self) -> Key:
        return self.instance_id, self.model, self.version, self.label


@dataclass(frozen=True)
class Opinion:
    """present: what the model had said. agrees: whether the reader says so too."""

    judged: Judged
    present: bool
    agrees: bool
    by: str
    at: datetime

    @property
    def truth(self) -> bool:
        """Whether the finding is there, by the reader's word."""
        return self.present is self.agrees


@dataclass(frozen=True)
class LabelledImage:
    """A stored image and what readers say is to be seen in it; None: they contradict each other.

    patient: a number that stands for the same patient in one export only. sender: the calling AE title.
    """

    path: str
    sop_instance_uid: str
    patient: str
    sender: str
    truth: dict[str, bool | None]
    opinions: int
    disagreements: int  # with the model


class Opinions(Questions):
    """Of `ledger.ledger.Ledger`."""

    def give_opinion(self, judged: Judged, agrees: bool, by: str, peer: str = "") -> bool:
        """Keep a reader's word on a finding as it stands now; False when no model says that of the image."""
        with self._keep() as connection:
            finding = _finding(connection, judged)
            if finding is not None:
                _insert(connection, judged, finding, agrees, by, peer)
        return finding is not None

    def opinions_of(self, study_uid: str) -> list[Opinion]:
        """The newest word of each person on each finding of a study, oldest first."""
        with self._read() as connection:
            return _newest(connection, study_uid)

    def labelled_images(self, model: str | None = None) -> list[LabelledImage]:
        """Every image on which somebody has said something, in the order in which it came. model: of that one only."""
        with self._read() as connection:
            held = [one for one in _newest(connection) if model in (None, one.judged.model)]
            return _labelled(connection, held)

    def _keep(self) -> AbstractContextManager[Connection]:
        return transaction(self._engine, write=True)


def _finding(connection: Connection, judged: Judged) -> Finding | None:
    """A slice says nothing by itself: there is no finding of it to judge."""
    rows = connection.execute(
        select(results.c.body)
        .join(instances, instances.c.id == results.c.instance_id)
        .where(
            results.c.instance_id == judged.instance_id,
            results.c.study_uid == judged.study_uid,
            ~results.c.withdrawn,
            counts_now(),
        )
        .order_by(results.c.id.desc())
    )
    for result in map(load_result, rows.scalars()):
        model = result.model
        if model is None or is_slice(result) or (model.name, model.version) != (judged.model, judged.version):
            continue
        for finding in result.findings:
            if finding.label == judged.label:
                return finding
    return None


def _insert(connection: Connection, judged: Judged, finding: Finding, agrees: bool, by: str, peer: str) -> None:
    connection.execute(
        opinions.insert().values(at=db_now()),
        {
            "study_uid": judged.study_uid,
            "instance_id": judged.instance_id,
            "model": judged.model,
            "version": judged.version,
            "label": judged.label,
            "present": finding.present,
            "agrees": agrees,
            "by": by,
        },
    )
    said = "agrees" if agrees else "disagrees"
    what = f"{judged.label} {'present' if finding.present else 'not flagged'}"
    text = f"{by} {said} with {judged.model} {judged.version}: {what}."
    note(connection, judged.study_uid, "opinion_given", text, instance_id=judged.instance_id)
    detail = {"what": "opinion", "model": judged.model, "version": judged.version, "label": judged.label}
    event = AuditEvent(AuditKind.OPERATED, f"user:{by}", judged.study_uid, peer=peer, detail=detail | {"said": said})
    audit.record(connection, event)


def _newest(connection: Connection, study_uid: str | None = None) -> list[Opinion]:
    query = select(opinions).order_by(opinions.c.id)
    if study_uid is not None:
        query = query.where(opinions.c.study_uid == study_uid)
    found: dict[tuple[Key, str], Opinion] = {}
    for row in connection.execute(query):
        judged = Judged(row.study_uid, row.instance_id, row.model, row.version, row.label)
        found.pop((judged.key, row.by), None)
        found[judged.key, row.by] = Opinion(judged, row.present, row.agrees, row.by, moment(row.at))
    return list(found.values())


def _labelled(connection: Connection, held: Collection[Opinion]) -> list[LabelledImage]:
    by_image: dict[int, list[Opinion]] = {}
    for one in held:
        by_image.setdefault(one.judged.instance_id, []).append(one)
    rows = connection.execute(select(instances).where(instances.c.id.in_(by_image)).order_by(instances.c.id))
    patients: dict[str, str] = {}
    made = []
    for row in rows:
        whose = row.patient_digest or row.study_uid
        said = by_image[row.id]
        made.append(
            LabelledImage(
                path=row.path,
                sop_instance_uid=row.sop_instance_uid,
                patient=patients.setdefault(whose, f"p{len(patients) + 1}"),
                sender=row.calling_ae_title,
                truth=_truth(said),
                opinions=len(said),
                disagreements=sum(not one.agrees for one in said),
            )
        )
    return made


def _truth(said: Iterable[Opinion]) -> dict[str, bool | None]:
    """By label; readers who contradict each other leave it open."""
    told: dict[str, set[bool]] = {}
    for one in said:
        told.setdefault(one.judged.label, set()).add(one.truth)
    return {label: words.pop() if len(words) == 1 else None for label, words in told.items()}
