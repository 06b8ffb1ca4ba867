"""How a study's files and rows go, so that a crash at any moment leaves neither a row that promises a file nor a file
that no row knows.

First, in one transaction, the rows go or say that their files are gone, and the files' names are written down; then
the files go and their folders are synced; then the names. Whatever was cut off is done again from the names.
"""

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Engine,
    Select,
    Table,
    Text,
    cast,
    delete,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from ledger.audit import key_of, study_key
from ledger.clinical import clinical
from ledger.codec import dump_result, load_result
from ledger.database import db_now, transaction
from ledger.store import Store
from ledger.tables import (
    awaited_instances,
    commitment_objects,
    commitment_request_items,
    commitment_requests,
    commitments,
    damaged_files,
    deliveries,
    events,
    installation,
    instances,
    jobs,
    notifications,
    objects,
    opinions,
    rejections,
    removals,
    removed_reports,
    report_models,
    report_sources,
    reports,
    results,
    stated_contents,
    stated_studies,
    studies,
)

AT_ONCE: Final = 500  # files
_TALLY: Final = "instances_removed"


def queue(connection: Connection, paths: Iterable[str]) -> None:
    """These files go; nothing in the ledger may name them after this transaction."""
    rows = [{"path": path} for path in dict.fromkeys(paths) if path]
    make = postgresql_insert if connection.dialect.name == "postgresql" else sqlite_insert
    if rows:
        connection.execute(make(removals).values(queued_at=db_now()).on_conflict_do_nothing(), rows)


def queued(connection: Connection) -> list[str]:
    """Some of the files that are to go."""
    return list(connection.execute(select(removals.c.path).order_by(removals.c.path).limit(AT_ONCE)).scalars())


def unlink(store: Store, paths: Sequence[str]) -> None:
    """Delete files durably: none of them is there again after a power cut. Those that are gone already are no error."""
    folders = set()
    for relative in paths:
        path = store.path(relative)
        path.unlink(missing_ok=True)
        folders.add(path.parent)
    for folder in sorted(folders):
        with contextlib.suppress(FileNotFoundError):
            store.sync_folder(folder)


def gone(connection: Connection, paths: Sequence[str]) -> None:
    """These have been deleted."""
    connection.execute(delete(removals).where(removals.c.path.in_(paths)))


def finish(connection: Connection, store: Store) -> None:
    """At the start: what a crash left of removals is done."""
    while paths := queued(connection):
        unlink(store, paths)
        gone(connection, paths)


def finish_all(engine: Engine, store: Store) -> int:
    """While others are at work: a transaction for the names, none while files are deleted. How many files."""
    count = 0
    while True:
        with transaction(engine, write=False) as connection:
            paths = queued(connection)
        if not paths:
            return count
        unlink(store, paths)
        with transaction(engine, write=True) as connection:
            gone(connection, paths)
        count += len(paths)


def pictures(connection: Connection, which: ColumnElement[bool]) -> list[str]:
    """Files that rows of `results` name: the pictures and the masks."""
    found = []
    for body in connection.execute(select(results.c.body).where(which)).scalars():
        result = load_result(body)
        found += [result.display_path or "", *(mask.path for mask in result.masks)]
    return [path for path in found if path]


def without_pictures(body: str) -> str:
    """A result that promises no file."""
    result = load_result(body)
    masks = tuple(replace(mask, path="") for mask in result.masks)
    return dump_result(replace(result, display_path=None, masks=masks))


def take_images(connection: Connection, study_uid: str) -> tuple[int, int]:
    """The study's instances and the pictures made of them go; what was said of them stays. (how many, their bytes).

    Study locked.
    """
    kept = (instances.c.study_uid == study_uid, instances.c.removed_at.is_(None))
    rows = connection.execute(select(instances.c.id, instances.c.path, instances.c.size_bytes).where(*kept)).all()
    of_study = results.c.study_uid == study_uid
    queue(connection, [*(row.path for row in rows), *pictures(connection, of_study)])
    for row in connection.execute(select(results.c.id, results.c.body).where(of_study)).all():
        connection.execute(update(results).where(results.c.id == row.id).values(body=without_pictures(row.body)))
    ids = [row.id for row in rows]
    connection.execute(delete(damaged_files).where(damaged_files.c.instance_id.in_(ids)))
    connection.execute(update(instances).where(*kept).values(removed_at=db_now()))
    connection.execute(update(studies).where(studies.c.study_uid == study_uid).values(images_removed_at=db_now()))
    return len(rows), sum(row.size_bytes for row in rows)


def files_of(connection: Connection, study_uid: str) -> list[str]:
    """Everything on disk that the ledger knows of a study."""
    made = select(objects.c.path).join(reports, reports.c.id == objects.c.report_id)
    paths = list(connection.execute(made.where(reports.c.study_uid == study_uid)).scalars())
    kept = select(instances.c.path).where(instances.c.study_uid == study_uid, instances.c.removed_at.is_(None))
    paths += connection.execute(kept).scalars()
    return paths + pictures(connection, results.c.study_uid == study_uid)


def take_all(connection: Connection, study_uid: str, *, study_too: bool) -> dict[str, int]:
    """Every file and every row of a study go, and its own row if `study_too`. Rows by table. Study locked."""
    queue(connection, files_of(connection, study_uid))
    _remember_reports(connection, study_uid)
    asked = _requests_for(connection, study_uid)
    tally(connection, study_uid)
    taken = {table.name: connection.execute(delete(table).where(which)).rowcount for table, which in _rows(study_uid)}
    _empty(connection, asked)
    if study_too:
        connection.execute(delete(studies).where(studies.c.study_uid == study_uid))
    return {name: count for name, count in taken.items() if count}


def tally(connection: Connection, study_uid: str) -> None:
    """What was received stays counted when its rows go. Study locked."""
    mine = select(func.count()).where(instances.c.study_uid == study_uid, clinical(instances.c.study_uid))
    if not (count := int(connection.execute(mine).scalar_one())):
        return
    make = postgresql_insert if connection.dialect.name == "postgresql" else sqlite_insert
    known = cast(cast(installation.c.value, BigInteger) + count, Text)
    counted = make(installation).values(key=_TALLY, value=str(count))
    connection.execute(counted.on_conflict_do_update(index_elements=["key"], set_={"value": known}))


def removed_so_far(connection: Connection) -> int:
    """Instances of patients that were received and whose rows are gone."""
    return int(connection.execute(select(installation.c.value).where(installation.c.key == _TALLY)).scalar() or 0)


def _rows(study_uid: str) -> list[tuple[Table, ColumnElement[bool]]]:
    """In an order that no foreign key minds."""
    images = select(instances.c.id).where(instances.c.study_uid == study_uid)
    uids = select(instances.c.sop_instance_uid).where(instances.c.study_uid == study_uid)
    made = select(reports.c.id).where(reports.c.study_uid == study_uid)
    sent = select(objects.c.id).where(objects.c.report_id.in_(made))
    theirs = select(jobs.c.id).where(jobs.c.study_uid == study_uid)
    stated = select(stated_studies.c.statement_id).where(stated_studies.c.study_uid == study_uid)
    return [
        (commitment_objects, commitment_objects.c.job_id.in_(theirs)),
        (commitment_request_items, commitment_request_items.c.sop_instance_uid.in_(uids)),
        (jobs, jobs.c.study_uid == study_uid),
        (deliveries, deliveries.c.object_id.in_(sent)),
        (notifications, notifications.c.report_id.in_(made)),
        (objects, objects.c.report_id.in_(made)),
        (report_models, report_models.c.report_id.in_(made)),
        (report_sources, or_(report_sources.c.report_id.in_(made), report_sources.c.instance_id.in_(images))),
        (reports, reports.c.study_uid == study_uid),
        (opinions, opinions.c.study_uid == study_uid),
        (results, results.c.study_uid == study_uid),
        (damaged_files, damaged_files.c.instance_id.in_(images)),
        (rejections, rejections.c.study_uid == study_uid),
        (awaited_instances, awaited_instances.c.statement_id.in_(stated)),  # listed with it, and perhaps of it
        (stated_studies, stated_studies.c.study_uid == study_uid),
        (events, events.c.study_uid == study_uid),
        (instances, instances.c.study_uid == study_uid),
    ]


def _requests_for(connection: Connection, study_uid: str) -> list[int]:
    """What senders asked us to commit, of this study or of it too."""
    uids = select(instances.c.sop_instance_uid).where(instances.c.study_uid == study_uid)
    items = commitment_request_items
    query = select(items.c.request_id).where(items.c.sop_instance_uid.in_(uids)).distinct()
    return list(connection.execute(query).scalars())


def _empty(connection: Connection, asked: Sequence[int]) -> None:
    """Lists and transactions of which nothing that we know is left. asked: requests that listed what went."""
    items = commitment_request_items
    here = select(items.c.request_id).join(instances, instances.c.sop_instance_uid == items.c.sop_instance_uid)
    known = set(connection.execute(here.where(items.c.request_id.in_(asked))).scalars())
    ended = [one for one in asked if one not in known]
    connection.execute(delete(items).where(items.c.request_id.in_(ended)))
    connection.execute(delete(commitment_requests).where(commitment_requests.c.id.in_(ended)))
    asked_of = select(commitment_objects.c.transaction_uid)
    connection.execute(delete(commitments).where(commitments.c.transaction_uid.not_in(asked_of)))
    left = or_(
        stated_contents.c.id.in_(select(stated_studies.c.statement_id)),
        stated_contents.c.id.in_(select(awaited_instances.c.statement_id)),
    )
    connection.execute(delete(stated_contents).where(~left))


def _remember_reports(connection: Connection, study_uid: str) -> None:
    made = int(connection.execute(_made(study_uid)).scalar_one())
    if not made:
        return
    key = study_key(key_of(connection), study_uid)
    mine = removed_reports.c.study_key == key
    more: dict[str, Any] = {"count": removed_reports.c.count + made, "removed_at": db_now()}
    if connection.execute(update(removed_reports).where(mine).values(**more)).rowcount == 0:
        connection.execute(removed_reports.insert().values(study_key=key, count=made, removed_at=db_now()))


def _made(study_uid: str) -> Select[int]:
    return select(func.count()).select_from(reports).where(reports.c.study_uid == study_uid)


def reports_before(connection: Connection, study_uid: str) -> int:
    """Reports of the study that were removed: the UIDs of what was made of them are never given again."""
    key = study_key(key_of(connection), study_uid)
    query = select(removed_reports.c.count).where(removed_reports.c.study_key == key)
    return int(connection.execute(query).scalar() or 0)
