"""The half of the ledger that knows how studies grow and when they are complete. Each method is one transaction."""

from collections.abc import Collection, Mapping

from ledger import completeness, peers
from ledger.database import transaction
from ledger.peers import Gaps, Observed
from ledger.questions import Questions
from ledger.records import Job, Stage
from ledger.wake import Wake


class Growth(Questions):
    """Of `ledger.ledger.Ledger`."""

    _wake: Wake

    def observe(self, observed: Mapping[str, Observed]) -> dict[str, Gaps]:
        """Add what was seen of peers, by calling AE title; returns how these send as far as is known now."""
        with transaction(self._engine, write=True) as connection:
            return peers.observe(connection, observed)

    def released(self, association_id: str, study_uids: Collection[str], after_s: float, because: str) -> None:
        """The association that brought the newest images of these studies was released: they wait `after_s` more."""
        with transaction(self._engine, write=True) as connection:
            completeness.released(connection, association_id, study_uids, after_s, because)
        self._wake.call(Stage.REPORT)

    def put_back(self, job: Job, after_s: float, limit_s: float, because: str) -> bool:
        """Give a held final report back, because more is known to come; False when its study's limit has passed."""
        with transaction(self._engine, write=True) as connection:
            return completeness.put_back(connection, job, after_s, limit_s, because)

    def set_aside(self, job: Job, for_s: float) -> None:
        """Give a held final report back for a moment, in which something is found out for it."""
        with transaction(self._engine, write=True) as connection:
            completeness.set_aside(connection, job, for_s)

    def corroborated(self, job: Job, text: str) -> None:
        """Add a sentence to the grounds on which a held final report was due."""
        with transaction(self._engine, write=True) as connection:
            completeness.corroborated(connection, job, text)
