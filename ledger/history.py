"""What happened to a study and why, written in the transaction that made it happen; read by `explain`."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, select

from ledger.codec import moment
from ledger.database import db_now
from ledger.tables import events

_INSERT = events.insert().values(at=db_now())


@dataclass(frozen=True)
class Event:
    """One thing that happened to a study, for `explain`."""

    at: datetime
    name: str
    text: str
    instance_id: int | None = None
    job_id: int | None = None


def note(
    connection: Connection,
    study_uid: str,
    name: str,
    text: str,
    instance_id: int | None = None,
    job_id: int | None = None,
) -> None:
    """Append one event. `text` is a sentence for a person; never a patient's name or id."""
    connection.execute(
        _INSERT, {"study_uid": study_uid, "name": name, "text": text, "instance_id": instance_id, "job_id": job_id}
    )


def read(connection: Connection, study_uid: str) -> list[Event]:
    """All events of a study, oldest first."""
    rows = connection.execute(select(events).where(events.c.study_uid == study_uid).order_by(events.c.id))
    return [Event(moment(row.at), row.name, row.text, row.instance_id, row.job_id) for row in rows]
