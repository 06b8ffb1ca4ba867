"""Who calls this node, how they send, and what they did not get: associations, presentation contexts, success.

Receivers gather this in memory and hand it over in batches: a crash loses a few seconds of it, and nobody waits for it.
Everything is bounded, because an AE title and a UID from the wire cost nothing to invent.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Table, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from ledger.codec import moment
from ledger.database import db_now
from ledger.tables import arrival_gaps, peers, refused_contexts

PEERS_MAX: Final = 200
CONTEXTS_MAX: Final = 200  # of one peer
OTHERS: Final = "others"  # in the place of an abstract syntax: those beyond CONTEXTS_MAX
ASSOCIATION: Final = "association"  # in that place: one that was rejected; then the called AE title
INSTANCE: Final = "instance"  # in that place: one that was refused; the reason is its status
IN_ALL: Final = (
    -1
)  # in the place of a bucket: how many studies began, or (between) how many releases ended one's images
BY_STOW: Final = "STOW:"  # what comes by STOW-RS has this before its token's name, in the place of a calling AE title
REMEMBERED_STUDIES: Final = 2_000  # beyond it all counts of a sender are halved: new habits outweigh old ones

Gaps = Mapping[tuple[bool, int], int]  # (between two associations, bucket or IN_ALL) -> count
Refusal = tuple[str, str, str]  # abstract syntax, proposed transfer syntaxes with spaces between them, reason


_IS_CONTEXT: Final = refused_contexts.c.abstract_syntax.not_in((ASSOCIATION, INSTANCE))


def nameless(kind: Refusal) -> Refusal:
    """As which it is counted where there is no room for more."""
    return kind[0] if kind[0] in (ASSOCIATION, INSTANCE) else OTHERS, "", kind[2]


def is_reserved(calling_ae_title: str) -> bool:
    """Whether a caller takes a name in which the ledger and the audit trail tell of somebody else."""
    return calling_ae_title.strip().upper().startswith(BY_STOW)


@dataclass
class Observed:
    """What a receiver saw of one peer since it last told."""

    associations: int = 0
    instances: int = 0
    gaps: dict[tuple[bool, int], int] = field(default_factory=dict)
    refused: dict[Refusal, int] = field(default_factory=dict)


@dataclass(frozen=True)
class RefusedKind:
    """A presentation context that a peer proposed and did not get, and how often."""

    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]
    reason: str
    count: int
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True)
class Peer:
    """One that has called."""

    calling_ae_title: str
    associations: int
    instances: int
    first_at: datetime
    last_at: datetime


def observe(connection: Connection, observed: Mapping[str, Observed]) -> dict[str, Gaps]:
    """Add what was seen, by calling AE title; returns the gaps of these peers as they are known now."""
    observed = {title: one for title, one in observed.items() if one != Observed()}  # the node's own calls
    kept = {title: observed[title] for title in _with_room(connection, observed)}
    now = {"first_at": db_now(), "last_at": db_now()}
    _add(
        connection,
        peers,
        [{"calling_ae_title": t, "associations": o.associations, "instances": o.instances} for t, o in kept.items()],
        ("associations", "instances"),
        now,
    )
    gaps = [
        {"calling_ae_title": title, "between": between, "bucket": bucket, "count": count}
        for title, one in kept.items()
        for (between, bucket), count in sorted(one.gaps.items())
    ]
    _add(connection, arrival_gaps, gaps, ("count",), {})
    _forget_slowly(connection)
    for title, one in kept.items():
        _add(connection, refused_contexts, _refusals(connection, title, one.refused), ("count",), now)
    return gaps_of(connection, kept)


def gaps_of(connection: Connection, titles: Collection[str] | None = None) -> dict[str, Gaps]:
    """What is known of how these peers, or all, send."""
    query = select(arrival_gaps)
    if titles is not None:
        query = query.where(arrival_gaps.c.calling_ae_title.in_(titles))
    found: dict[str, dict[tuple[bool, int], int]] = {}
    for row in connection.execute(query):
        found.setdefault(row.calling_ae_title, {})[row.between, row.bucket] = row._mapping["count"]
    return dict(found)


def known(connection: Connection) -> list[Peer]:
    """Everybody who has called, the last first."""
    rows = connection.execute(select(peers).order_by(peers.c.last_at.desc()))
    return [
        Peer(row.calling_ae_title, row.associations, row.instances, moment(row.first_at), moment(row.last_at))
        for row in rows
    ]


def refused_of(connection: Connection, calling_ae_title: str) -> list[RefusedKind]:
    """The presentation contexts that a peer did not get, the most frequent first."""
    return _kinds(connection, calling_ae_title, _IS_CONTEXT)


def turned_away(connection: Connection, calling_ae_title: str) -> list[RefusedKind]:
    """The associations (ASSOCIATION) and instances (INSTANCE) of a peer that were not taken."""
    return _kinds(connection, calling_ae_title, ~_IS_CONTEXT)


def _kinds(connection: Connection, calling_ae_title: str, which: ColumnElement[bool]) -> list[RefusedKind]:
    query = select(refused_contexts).where(_of(refused_contexts, calling_ae_title), which)
    rows = connection.execute(query.order_by(refused_contexts.c.count.desc(), refused_contexts.c.abstract_syntax))
    return [
        RefusedKind(
            row.abstract_syntax,
            tuple(row.transfer_syntaxes.split()),
            row.reason,
            row._mapping["count"],  # a row has a method of that name
            moment(row.first_at),
            moment(row.last_at),
        )
        for row in rows
    ]


def refused_counts(connection: Connection) -> dict[tuple[str, str, bool], int]:
    """(calling AE title, reason, whether it has stored here) -> presentation contexts refused."""
    stores = (peers.c.instances > 0).label("stores")
    query = (
        select(
            refused_contexts.c.calling_ae_title, refused_contexts.c.reason, stores, func.sum(refused_contexts.c.count)
        )
        .join(peers, peers.c.calling_ae_title == refused_contexts.c.calling_ae_title)
        .where(_IS_CONTEXT)
        .group_by(refused_contexts.c.calling_ae_title, refused_contexts.c.reason, stores)
    )
    return {(row[0], row[1], bool(row[2])): int(row[3]) for row in connection.execute(query)}


def _with_room(connection: Connection, observed: Mapping[str, Observed]) -> list[str]:
    """The peers that may be kept, in order. Strangers that have stored nothing make room, the longest unseen first."""
    stored = {row.calling_ae_title: row.instances for row in connection.execute(select(peers))}
    fresh = sorted((title for title in observed if title not in stored), key=lambda t: -observed[t].instances)
    excess = len(stored) + len(fresh) - PEERS_MAX
    if excess > 0:
        idle = select(peers.c.calling_ae_title).where(peers.c.instances == 0, peers.c.calling_ae_title.not_in(observed))
        gone = list(connection.execute(idle.order_by(peers.c.last_at).limit(excess)).scalars())
        for table in (refused_contexts, arrival_gaps, peers):
            connection.execute(delete(table).where(table.c.calling_ae_title.in_(gone)))
        fresh = fresh[: max(0, PEERS_MAX - len(stored) + len(gone))]
    return sorted({*fresh, *(title for title in observed if title in stored)})


def _refusals(connection: Connection, title: str, refused: Mapping[Refusal, int]) -> list[dict[str, Any]]:
    """Rows to add; what goes beyond CONTEXTS_MAX of a peer is counted without a name."""
    if not refused:
        return []
    columns = (refused_contexts.c.abstract_syntax, refused_contexts.c.transfer_syntaxes, refused_contexts.c.reason)
    there = {tuple(row) for row in connection.execute(select(*columns).where(_of(refused_contexts, title)))}
    counted: dict[Refusal, int] = {}
    for kind, count in sorted(refused.items()):
        if kind not in there and len(there) >= CONTEXTS_MAX:
            kind = nameless(kind)
        else:
            there.add(kind)
        counted[kind] = counted.get(kind, 0) + count
    return [
        {
            "calling_ae_title": title,
            "abstract_syntax": one,
            "transfer_syntaxes": syntaxes,
            "reason": why,
            "count": count,
        }
        for (one, syntaxes, why), count in sorted(counted.items())
    ]


def _of(table: Table, title: str) -> Any:
    return table.c.calling_ae_title == title


def _add(
    connection: Connection,
    table: Table,
    rows: list[dict[str, Any]],
    counts: Iterable[str],
    now: Mapping[str, Any],
) -> None:
    """Insert the rows, or add their counts to those that are there. Always in one order, so that none deadlock."""
    if not rows:
        return
    make = postgresql_insert if connection.dialect.name == "postgresql" else sqlite_insert
    insert = make(table).values(**now)
    more: dict[str, Any] = {name: table.c[name] + insert.excluded[name] for name in counts}
    if now:
        more["last_at"] = insert.excluded.last_at
    keys = [column.name for column in table.primary_key.columns]
    connection.execute(insert.on_conflict_do_update(index_elements=keys, set_=more), rows)


def _forget_slowly(connection: Connection) -> None:
    many = select(arrival_gaps.c.calling_ae_title).where(
        arrival_gaps.c.bucket == IN_ALL, arrival_gaps.c.count > REMEMBERED_STUDIES
    )
    titles = list(connection.execute(many).scalars())
    if titles:
        halved = update(arrival_gaps).where(or_(*(_of(arrival_gaps, title) for title in sorted(set(titles)))))
        connection.execute(halved.values(count=(arrival_gaps.c.count + 1) // 2))
