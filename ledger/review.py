"""What was said of stored studies, read again: for trying other models and thresholds on them. Nothing is changed."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, and_, or_, select

from ledger.codec import load_result, moment
from ledger.questions import Questions
from ledger.records import Disposition, ImageResult
from ledger.standing import counts_now
from ledger.tables import instances, results, studies

PAGE: Final = 100  # studies in one question


@dataclass(frozen=True)
class ReviewedImage:
    """An image that counts, and what was said of it. path: relative to the store; None where the file was removed."""

    instance_id: int
    series_instance_uid: str
    sop_instance_uid: str
    path: str | None
    received_at: datetime
    results: tuple[ImageResult, ...]


@dataclass(frozen=True)
class ReviewedStudy:
    """A study that was to be triaged: no prior, no heartbeat."""

    study_instance_uid: str
    first_received_at: datetime
    images: tuple[ReviewedImage, ...]

    @property
    def said(self) -> list[tuple[str, ImageResult]]:
        """Everything said of it, each with its series (ledger.slices.Said)."""
        return [(image.series_instance_uid, result) for image in self.images for result in image.results]


class Review(Questions):
    """Of `ledger.ledger.Ledger`."""

    def reviewed(self, since: datetime) -> Iterator[ReviewedStudy]:
        """Every study first received since then, oldest first. Asked page by page: the node works on meanwhile."""
        passed: Row[Any] | None = None
        while True:
            with self._read() as connection:
                rows = _page(connection, since, passed)
                found = _with_images(connection, rows)
            yield from found
            if len(rows) < PAGE:
                return
            passed = rows[-1]

    def count_reviewed(self, since: datetime) -> int:
        """How many `reviewed` would give now."""
        with self._read() as connection:
            return len(connection.execute(select(studies.c.study_uid).where(*_which(since))).all())


def _which(since: datetime) -> list[Any]:
    return [studies.c.first_received_at >= since.timestamp(), ~studies.c.is_prior, ~studies.c.is_heartbeat]


def _page(connection: Connection, since: datetime, passed: Row[Any] | None) -> list[Row[Any]]:
    query = select(studies.c.study_uid, studies.c.first_received_at).where(*_which(since))
    if passed is not None:
        same = and_(studies.c.first_received_at == passed.first_received_at, studies.c.study_uid > passed.study_uid)
        query = query.where(or_(studies.c.first_received_at > passed.first_received_at, same))
    ordered = query.order_by(studies.c.first_received_at, studies.c.study_uid)
    return [*connection.execute(ordered.limit(PAGE))]


def _with_images(connection: Connection, rows: list[Row[Any]]) -> list[ReviewedStudy]:
    uids = [row.study_uid for row in rows]
    said: dict[int, list[ImageResult]] = {}
    bodies = select(results.c.instance_id, results.c.body).where(results.c.study_uid.in_(uids), ~results.c.withdrawn)
    for row in connection.execute(bodies.order_by(results.c.id)):
        said.setdefault(row.instance_id, []).append(load_result(row.body))
    images: dict[str, list[ReviewedImage]] = {}
    kept = select(instances).where(
        instances.c.study_uid.in_(uids), instances.c.disposition == Disposition.ANALYSE, counts_now()
    )
    for row in connection.execute(kept.order_by(instances.c.id)):
        images.setdefault(row.study_uid, []).append(
            ReviewedImage(
                row.id,
                row.series_uid,
                row.sop_instance_uid,
                None if row.removed_at is not None else row.path,
                moment(row.received_at),
                tuple(said.get(row.id, ())),
            )
        )
    return [
        ReviewedStudy(row.study_uid, moment(row.first_received_at), tuple(images.get(row.study_uid, ())))
        for row in rows
    ]
