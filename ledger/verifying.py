"""Whether the audit trail is what was written: the chain is walked from its beginning and held against its heads."""

from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, Row, exists, func, select

from ledger.audit import SINCE
from ledger.database import db_now
from ledger.sealing import COLUMNS, canonical, genesis, link
from ledger.tables import audit_records, audit_seals, installation, studies

UNSEALED_S: Final = 60.0  # what was sealed so much later had been preceded by the record, if it was there
LATE_S: Final = 60.0
PROBLEMS_MAX: Final = 1_000  # told one by one; of a chain that was cut to pieces the rest is counted
_AT_ONCE: Final = 2_000
_NO_NUMBER: Final = (
    1e300  # later than any time; in SQLite text and bytes, where somebody has put them, are greater still
)

Heads = Mapping[int, Set[str]]  # sequence -> the digests that were exported for it; more than one is a problem already


@dataclass(frozen=True)
class Problem:
    """Something that is not as it was written. sequence: of the seal; record_id: None where no record is to blame."""

    text: str
    sequence: int | None = None
    record_id: int | None = None


@dataclass
class Verdict:
    """late: sealed more than a minute after they were written; no sealer ran meanwhile, or their time was invented."""

    records: int = 0
    sealed: int = 0
    waiting: int = 0  # not sealed yet: nothing younger is
    waiting_s: float = 0.0  # for how long the oldest of them
    late: int = 0
    heads: int = 0  # exported heads that agree
    problems: list[Problem] = field(default_factory=list)
    problem_count: int = 0

    def found(self, text: str, sequence: int | None = None, record_id: int | None = None) -> None:
        self.problem_count += 1
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(Problem(text, sequence, record_id))


def verify(connection: Connection, heads: Heads, progress: Callable[[int, int], None]) -> Verdict:
    """progress: called with how many seals were looked at, and how many there are."""
    with _whatever_stands_there(connection):
        return _verify(connection, heads, progress)


def _verify(connection: Connection, heads: Heads, progress: Callable[[int, int], None]) -> Verdict:
    verdict = Verdict()
    total = int(connection.execute(select(func.count()).select_from(audit_seals)).scalar_one())
    digest, last = genesis(connection), 0
    for row in _sealed(connection):
        digest = _look(verdict, row, digest, last, heads)
        last = row.sequence
        if verdict.sealed % _AT_ONCE == 0:
            progress(verdict.sealed, total)
    progress(total, total)
    _look_at_tail(verdict, heads, last)
    _look_at_unsealed(connection, verdict)
    verdict.records = int(connection.execute(select(func.count()).select_from(audit_records)).scalar_one())
    _look_at_nothing(connection, verdict)
    _look_at_beginning(connection, verdict)
    return verdict


@contextmanager
def _whatever_stands_there(connection: Connection) -> Iterator[None]:
    """Text that is no UTF-8 is read all the same: in SQLite's file anybody may have written it."""
    driver: Any = connection.connection.driver_connection
    if connection.dialect.name != "sqlite":
        yield
        return
    before, driver.text_factory = driver.text_factory, lambda text: text.decode("utf-8", "surrogateescape")
    try:
        yield
    finally:
        driver.text_factory = before


def _look_at_beginning(connection: Connection, verdict: Verdict) -> None:
    """A trail that was begun anew is younger than what the ledger took since it has had one."""
    since = connection.execute(select(installation.c.value).where(installation.c.key == SINCE)).scalar()
    first = connection.execute(select(func.min(audit_records.c.at)).where(audit_records.c.at < _NO_NUMBER)).scalar()
    if since is None or first is None:
        return
    came = studies.c.first_received_at.between(float(since) + LATE_S, float(first) - LATE_S)
    count = int(connection.execute(select(func.count()).where(came, ~studies.c.is_heartbeat)).scalar_one())
    if count:
        verdict.found(f"the first record is younger than {count} studies that came before it: the trail was begun anew")


def _look_at_nothing(connection: Connection, verdict: Verdict) -> None:
    """A trail of which all was deleted has no gap. But a ledger that took images has records of it, and seals."""
    if verdict.sealed or connection.execute(select(studies.c.study_uid).limit(1)).first() is None:
        return
    if not verdict.records:
        verdict.found("there is no record at all, and the ledger has studies: the whole trail was deleted")
    elif verdict.waiting_s > UNSEALED_S:
        verdict.found(
            f"nothing is sealed, and the oldest record has waited {verdict.waiting_s:.0f} s: all seals were deleted, "
            "or no node has run since the trail began"
        )


def _sealed(connection: Connection) -> Iterator[Row[Any]]:
    """Every seal, oldest first, each with its record, or Nones."""
    columns = [audit_records.c[name] for name in COLUMNS]
    query = select(audit_seals, *columns).select_from(
        audit_seals.outerjoin(audit_records, audit_records.c.id == audit_seals.c.record_id)
    )
    after = None
    while True:
        part = query if after is None else query.where(audit_seals.c.sequence > after)
        rows = connection.execute(part.order_by(audit_seals.c.sequence).limit(_AT_ONCE)).all()
        if not rows:
            return
        yield from rows
        after = rows[-1].sequence


def _look(verdict: Verdict, row: Row[Any], digest: str, last: int, heads: Heads) -> str:
    """One seal, given the digest and number of the one before; the digest that the next one must be made of."""
    verdict.sealed += 1
    at = row.sequence
    if at != last + 1:
        gone = f"the seals {last + 1} to {at - 1} are" if at > last + 2 else f"the seal {at - 1} is"
        verdict.found(f"{gone} gone", at)
    if row.id is None:
        verdict.found(f"the record {row.record_id} is gone; it has the seal {at}", at, row.record_id)
    elif not _is_as_sealed(row, digest if at == last + 1 else None):
        verdict.found(f"the record {row.id}, its seal {at}, or its place is not what was sealed", at, row.id)
    elif row.sealed_at - row.at > LATE_S:
        verdict.late += 1
    if at in heads:
        if heads[at] == {row.digest}:
            verdict.heads += 1
        else:
            verdict.found(f"the seal {at} is not the one that was exported as head of the chain", at, row.record_id)
    return str(row.digest)


def _is_as_sealed(row: Row[Any], previous: str | None) -> bool:
    """previous: the digest of the seal before; None where that is gone, so that this one proves nothing. A column may
    hold anything once somebody has edited the file: what is no number and no digest was not written by us."""
    if not (isinstance(row.sealed_at, float) and isinstance(row.at, float)):
        return False
    try:
        return previous is None or bool(row.digest == link(previous, canonical(row.sequence, row.sealed_at, row)))
    except ValueError:  # the digest before is none, of which that seal's own look has told
        return False


def _look_at_tail(verdict: Verdict, heads: Heads, last: int) -> None:
    furthest = max(heads, default=0)
    if furthest > last:
        verdict.found(f"the end was cut off: the seal {furthest} was exported, and the chain ends at {last}", furthest)


def _look_at_unsealed(connection: Connection, verdict: Verdict) -> None:
    """Records without a seal: young ones wait for it; where the sealer went on after them they were put in later."""
    is_sealed = exists().where(audit_seals.c.record_id == audit_records.c.id)
    is_number = audit_seals.c.sealed_at < _NO_NUMBER
    newest = connection.execute(select(func.coalesce(func.max(audit_seals.c.sealed_at), 0.0)).where(is_number)).scalar()
    age_s = (db_now() - audit_records.c.at).label("age_s")
    wanted = select(audit_records.c.id, audit_records.c.at, age_s).where(~is_sealed).order_by(audit_records.c.id)
    for row in connection.execute(wanted):
        if not isinstance(row.at, float):
            verdict.found(f"the record {row.id} has a time that is none", None, row.id)
        elif row.at + UNSEALED_S < (newest or 0.0):
            text = (
                f"the record {row.id} has no seal, and younger ones have: it was put in later, or its seal taken away"
            )
            verdict.found(text, None, row.id)
        else:
            verdict.waiting += 1
            verdict.waiting_s = max(verdict.waiting_s, row.age_s)
