"""Shadow mode: everything is looked at, reported and shown, and nothing new is said outside.

A process is in shadow mode as its settings say, and every transaction of its ledger knows it. A report made then is
marked for ever: it is sent to nobody, not after the node went live either. To a node that is live it was never said.

What was said before, live, is taken back in shadow mode too where it is no longer true: that leaves, and nothing else.
"""

from typing import Final

from sqlalchemy import ColumnElement, Connection, Engine, and_, false, select

from ledger.delivery_records import DeliveryState
from ledger.records import ReportKind
from ledger.tables import deliveries, jobs, notifications, objects, reports

NOT_SENT: Final = "shadow"  # the state of a delivery, or of a message, that was never to leave
_OPTION: Final = "opentriage_shadow"


def enter(engine: Engine, in_shadow: bool) -> None:
    """Every transaction of the engine is in shadow mode from now on, or is not."""
    engine.update_execution_options(**{_OPTION: in_shadow})


def is_on(connection: Connection) -> bool:
    return bool(connection.get_execution_options().get(_OPTION, False))


def was_said(connection: Connection) -> ColumnElement[bool]:
    """A condition on rows of `reports`: it counts as said. Live, what was made in shadow mode does not."""
    return ~false() if is_on(connection) else ~reports.c.is_shadow


def may_leave_now(connection: Connection) -> ColumnElement[bool]:
    """A condition on rows of `reports`."""
    taken_back = reports.c.kind == ReportKind.WITHDRAWN
    return and_(~reports.c.is_shadow, taken_back if is_on(connection) else ~false())


def held_back(connection: Connection) -> ColumnElement[bool]:
    """A condition on rows of `jobs` that deliver or tell: it waits for the node to go live."""
    if not is_on(connection):
        return false()
    return jobs.c.report_id.in_(select(reports.c.id).where(reports.c.kind != ReportKind.WITHDRAWN))


def would_have_reached(connection: Connection, study_uid: str) -> tuple[set[str], set[str]]:
    """Destinations and adapters that reports of a study would have gone to."""
    of_study = reports.c.study_uid == study_uid
    places = (
        select(deliveries.c.destination)
        .join(objects, objects.c.id == deliveries.c.object_id)
        .join(reports, reports.c.id == objects.c.report_id)
        .where(of_study, deliveries.c.state == DeliveryState.SHADOW)
    )
    told = (
        select(notifications.c.adapter)
        .join(reports, reports.c.id == notifications.c.report_id)
        .where(of_study, notifications.c.state == NOT_SENT)
    )
    return set(connection.execute(places).scalars()), set(connection.execute(told).scalars())
