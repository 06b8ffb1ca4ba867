"""The audit trail: what was done, by whom, to what, written in the transaction that did it (PS3.15 A.5).

Rows are added and never changed. Studies and patients appear as keyed hashes: who holds the installation's key can ask
after a study that he knows, and nobody can read from the trail whom it was about.
"""

import hmac
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum
from typing import Any, Final
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, select

from ledger.database import db_now
from ledger.tables import audit_records, installation, studies

SINCE: Final = "audit_since"  # in `installation`: since when the ledger has a trail, in seconds since 1970
NODE: Final = "node"  # the actor where nobody in particular acts
_keys: WeakKeyDictionary[Engine, bytes] = WeakKeyDictionary()  # made once for each installation, and never changed


class AuditKind(StrEnum):
    """What happened; the event identifiers of PS3.15 A.5.3, and what the standard has no event for."""

    ACTIVITY = "application_activity"  # the node, or one of its roles, starts or stops
    TRANSFERS = "transfer_begins"  # to a destination, which has taken our association
    TRANSFERRED = "instances_transferred"  # received, or accepted by a destination
    ACCESSED = "instances_accessed"  # looked at by a person or a program
    ANALYSED = "analysed"
    REPORTED = "reported"
    QUERY = "query"
    EXPORT = "export"
    STUDY_DELETED = "study_deleted"
    SECURITY_ALERT = "security_alert"  # a caller turned away, a certificate refused, the chain broken
    CONFIGURATION = "configuration_changed"
    MODEL = "model_changed"
    AUTHENTICATION = "user_authentication"
    LOG_USED = "audit_log_used"
    OPERATED = "operated"  # a person released, recalled, redirected, gave an opinion


class Outcome(IntEnum):
    """PS3.15 A.5.1."""

    SUCCESS = 0
    MINOR_FAILURE = 4
    SERIOUS_FAILURE = 8
    MAJOR_FAILURE = 12


@dataclass(frozen=True)
class AuditEvent:
    """actor: "ae:TITLE", "user:NAME", "node:ROLE". detail: JSON values, never a patient's name or
    id, nor the UID of a study, series or instance.

    patient_digest: as `Ledger.patient_digest` makes it; it is a keyed hash already. Without one it is the study's.
    """

    kind: AuditKind
    actor: str
    study_uid: str = ""
    patient_digest: str = ""
    peer: str = ""
    outcome: Outcome = Outcome.SUCCESS
    detail: Mapping[str, Any] = field(default_factory=dict)


class Person(str):
    """An actor of whom more is known than his name. also: goes into the detail of every record of what he does."""

    also: Mapping[str, str]

    def __new__(cls, actor: str, also: Mapping[str, str]) -> "Person":
        made = super().__new__(cls, actor)
        made.also = also
        return made


COLUMNS: Final = ("kind", "outcome", "actor", "peer", "study_key", "patient_key", "detail")
INSERT: Final = audit_records.insert().values(at=db_now())


def record(connection: Connection, *events: AuditEvent) -> None:
    """Append to the trail, in the caller's transaction."""
    if events:
        connection.execute(INSERT, rows(_with_patients(connection, events), key_of(connection)))


def _with_patients(connection: Connection, events: Iterable[AuditEvent]) -> list[AuditEvent]:
    """Whoever knows of a study alone need not know whose it is: the ledger does."""
    named = list(events)
    uids = {event.study_uid for event in named if event.study_uid and not event.patient_digest}
    if not uids:
        return named
    query = select(studies.c.study_uid, studies.c.patient_digest).where(studies.c.study_uid.in_(uids))
    known = {row.study_uid: row.patient_digest for row in connection.execute(query)}
    return [replace(one, patient_digest=one.patient_digest or known.get(one.study_uid, "")) for one in named]


def rows(events: Iterable[AuditEvent], key: bytes) -> list[dict[str, Any]]:
    """What INSERT takes. Nothing in it can make a database refuse the transaction that it is a part of."""
    return [
        {
            "kind": event.kind.value,
            "outcome": int(event.outcome),
            "actor": _fitting(event.actor, 160),
            "peer": _fitting(event.peer, 64),
            "study_key": study_key(key, event.study_uid),
            "patient_key": event.patient_digest,
            "detail": json.dumps(_detail(event), sort_keys=True, separators=(",", ":")),
        }
        for event in events
    ]


def _detail(event: AuditEvent) -> Mapping[str, Any]:
    return {**event.detail, **event.actor.also} if isinstance(event.actor, Person) else event.detail


def _fitting(text: str, longest: int) -> str:
    """As a column holds it: names come from the wire, too long or with what no text may hold."""
    return text.encode("utf-8", "replace").decode().replace("\0", "?")[:longest]


def study_key(key: bytes, study_uid: str) -> str:
    """How a study is named in the trail."""
    return hmac.digest(key, b"study\0" + study_uid.encode(), "sha256").hex() if study_uid else ""


def key_of(connection: Connection) -> bytes:
    """The installation's secret."""
    known = _keys.get(connection.engine)
    if known is None:
        of_patients = select(installation.c.value).where(installation.c.key == "patient_key")
        known = _keys[connection.engine] = bytes.fromhex(connection.execute(of_patients).scalar_one())
    return known
