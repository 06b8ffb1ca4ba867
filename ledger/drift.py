"""What was said of the studies of the last weeks, for holding one week against those before (node.watching.drift).

A study counts once, at the time of its first image: images that came again, or were looked at again, are the same
study's. Heartbeats and priors are no studies here; what was rejected, corrected or withdrawn was not said. Shadow mode
changes nothing: results are of images, and each image has those of its last look alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import select, update

from ledger.codec import load_result, moment
from ledger.database import transaction
from ledger.questions import Questions
from ledger.records import ImageResult
from ledger.standing import counts_now
from ledger.tables import installation, instances, results, studies

PAGE: Final = 100  # studies in one question: no reading lasts so long that a log could not be taken over meanwhile
KEPT_AS: Final = "drift"


@dataclass(frozen=True)
class SaidOfStudy:
    """said: each result of the study's images, with the calling AE title that sent the image. patient: a keyed hash,
    equal for equal patients, or empty; for counting alone."""

    first_received_at: datetime
    patient: str
    said: tuple[tuple[str, ImageResult], ...]


class Drifting(Questions):
    """Of `ledger.ledger.Ledger`; each question is one transaction."""

    def said_since(self, since: datetime, until: datetime) -> Iterator[list[SaidOfStudy]]:
        """Every study first received in [since, until) of which something was said, page by page, in no order."""
        began, end = since.timestamp(), until.timestamp()
        query = select(studies.c.study_uid, studies.c.first_received_at, studies.c.patient_digest).where(
            studies.c.last_received_at >= began,  # this is what the index knows
            studies.c.first_received_at >= began,
            studies.c.first_received_at < end,
            ~studies.c.is_prior,  # nobody looks at them: not to be read in vain
            ~studies.c.is_heartbeat,
        )
        with self._read() as connection:
            known = {row.study_uid: row for row in connection.execute(query)}
        uids = list(known)
        for start in range(0, len(uids), PAGE):
            said = self._said_of(uids[start : start + PAGE])
            rows = [(known[uid], tuple(found)) for uid, found in said.items()]
            yield [SaidOfStudy(moment(row.first_received_at), row.patient_digest, found) for row, found in rows]

    def _said_of(self, study_uids: list[str]) -> dict[str, list[tuple[str, ImageResult]]]:
        query = (
            select(results.c.study_uid, results.c.body, instances.c.calling_ae_title)
            .join(instances, instances.c.id == results.c.instance_id)
            .where(results.c.study_uid.in_(study_uids), ~results.c.withdrawn, counts_now())
        )
        found: dict[str, list[tuple[str, ImageResult]]] = {}
        with self._read() as connection:
            rows = connection.execute(query).all()
        for row in rows:
            found.setdefault(row.study_uid, []).append((row.calling_ae_title, load_result(row.body)))
        return found

    def keep_drift(self, found: str) -> None:
        """What was found the last time, as JSON, in place of what was kept before: for every machine to show."""
        with transaction(self._engine, write=True) as connection:
            ours = update(installation).where(installation.c.key == KEPT_AS).values(value=found)
            if not connection.execute(ours).rowcount:
                connection.execute(installation.insert().values(key=KEPT_AS, value=found))

    def kept_drift(self) -> str | None:
        """None until anything was kept."""
        with self._read() as connection:
            return connection.execute(select(installation.c.value).where(installation.c.key == KEPT_AS)).scalar()
