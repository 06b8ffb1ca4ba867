"""An hour set back or forward on the wall clock makes no study wait, and none leave early."""

from pathlib import Path

import pytest
from sqlalchemy import select, update

from ledger.clock import follow_step
from ledger.database import db_now, transaction
from ledger.ledger import Ledger
from ledger.records import Stage
from ledger.tables import jobs
from node.running.clock import ClockWatch
from tests.support.ledgers import admit, open_fresh

HOUR_S = 3600.0


def set_clock(ledger: Ledger, by_s: float) -> None:
    """What a database sees whose clock was set by `by_s`: every moment that it wrote lies as far on the other side."""
    with transaction(ledger._engine, write=True) as connection:
        times = (jobs.c.queued_at, jobs.c.due_at, jobs.c.lease_expires_at)
        connection.execute(update(jobs).values({at.name: at - by_s for at in times}))


def now(ledger: Ledger) -> float:
    with transaction(ledger._engine, write=False) as connection:
        return float(connection.execute(select(db_now())).scalar_one())


def test_an_image_that_came_before_the_clock_was_set_back_is_due_at_once(tmp_path: Path) -> None:
    ledger = open_fresh(tmp_path)
    admit(ledger)
    set_clock(ledger, -HOUR_S)
    assert not ledger.claim(Stage.ANALYSE, "here:analyse:1:", 10, 60.0)
    assert follow_step(ledger, -HOUR_S, now(ledger) + HOUR_S) == 2  # its analysis, its study's report
    assert len(ledger.claim(Stage.ANALYSE, "here:analyse:1:", 10, 60.0)) == 1


def test_a_study_that_grows_does_not_leave_because_the_clock_was_set_forward(tmp_path: Path) -> None:
    ledger = open_fresh(tmp_path)
    admit(ledger)
    [job] = ledger.claim(Stage.ANALYSE, "here:analyse:1:", 10, 60.0)
    set_clock(ledger, HOUR_S)
    follow_step(ledger, HOUR_S, now(ledger) - HOUR_S)
    assert ledger.expire_leases() == 0
    ledger.park(job, "looked at")
    assert not ledger.claim(Stage.REPORT, "here:report:1:", 10, 60.0)


def test_what_was_queued_after_the_step_stays_where_it_is(tmp_path: Path) -> None:
    ledger = open_fresh(tmp_path)
    admit(ledger)
    assert follow_step(ledger, HOUR_S, now(ledger) - HOUR_S) == 0
    assert len(ledger.claim(Stage.ANALYSE, "here:analyse:1:", 10, 60.0)) == 1


@pytest.mark.parametrize(("step", "moved"), [(-HOUR_S, True), (HOUR_S, True), (0.4, False)])
def test_a_step_is_told_from_a_clock_that_is_slewed(tmp_path: Path, step: float, moved: bool) -> None:
    ledger = open_fresh(tmp_path)
    admit(ledger)
    began, clock = now(ledger), {"wall": now(ledger), "monotonic": 0.0}
    watch = ClockWatch(ledger, lambda: clock["wall"], lambda: clock["monotonic"])
    for seconds in (0.1, 0.1):
        clock["monotonic"] += seconds
        clock["wall"] += seconds + step
        watch.look()
        step = 0.0
    with transaction(ledger._engine, write=False) as connection:
        due = float(connection.execute(select(jobs.c.due_at).where(jobs.c.stage == Stage.ANALYSE)).scalar_one())
    assert (abs(due - began) > HOUR_S / 2) is moved
