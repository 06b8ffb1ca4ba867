"""What tells the node's own studies from a patient's. A heartbeat goes the whole path and is counted nowhere.

Its jobs have a rank of their own, behind everybody's, whatever the message's priority says: they never wait before a
patient's, and are known by it. Its objects go to one place, which no destination of the settings can be called.
"""

from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, select

from ledger.tables import jobs, studies

RANK: Final = 1_000
SINK: Final = "(heartbeat)"  # no name of a destination has brackets


def clinical(study_uid: ColumnElement[Any]) -> ColumnElement[bool]:
    """A condition: the study of this column is a patient's."""
    return study_uid.not_in(select(studies.c.study_uid).where(studies.c.is_heartbeat))


def clinical_job() -> ColumnElement[bool]:
    """A condition on rows of `jobs`: it is of a patient's study."""
    return jobs.c.rank != RANK


def is_heartbeat(connection: Connection, study_uid: str) -> bool:
    found = select(studies.c.is_heartbeat).where(studies.c.study_uid == study_uid)
    return bool(connection.execute(found).scalar())
