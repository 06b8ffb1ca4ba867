"""What a person sets going: parked jobs run again, deliveries are redirected, reports withdrawn, images looked at anew.

Each method is one transaction, which holds the audit record of who did it.
"""

from ledger import audit, deeds, notifications, revisions, work
from ledger.database import transaction
from ledger.deeds import PERSON
from ledger.questions import Questions
from ledger.records import Stage
from ledger.wake import Wake


class Operating(Questions):
    """Of `ledger.ledger.Ledger`. actor: who asked, as the audit trail names him."""

    _wake: Wake

    def release(self, job_id: int, actor: str = PERSON) -> bool:
        """Let a parked job run again. False when there is no such parked job."""
        with transaction(self._engine, write=True) as connection:
            stage = work.release(connection, job_id, actor)
        if stage is not None:
            self._wake.call(stage)
        return stage is not None

    def redirect(self, old: str, new: str, actor: str = PERSON) -> int:
        """Send what waits, or was parked, for the destination `old` to `new` instead; how many jobs moved."""
        with transaction(self._engine, write=True) as connection:
            moved = work.redirect(connection, old, new, actor)
        self._wake.call(Stage.DELIVER)
        return moved

    def stop_asking(self, destination: str, why: str, actor: str = PERSON) -> int:
        """Leave unproven what waits to be asked of a destination; how many jobs that ended."""
        with transaction(self._engine, write=True) as connection:
            ended = work.stop_asking(connection, destination, why)
            audit.record(connection, deeds.operated(actor, "stopped_asking", to=destination, jobs=ended))
            return ended

    def stop_telling(self, adapter: str, why: str, actor: str = PERSON) -> int:
        """Tell an adapter nothing of what waits, or was parked, for it; how many jobs that ended."""
        with transaction(self._engine, write=True) as connection:
            ended = notifications.stop_telling(connection, adapter, why)
            audit.record(connection, deeds.operated(actor, "stopped_telling", to=adapter, jobs=ended))
            return ended

    def recall(
        self,
        cause: str,
        study_uid: str | None = None,
        model: tuple[str, str | None] | None = None,
        actor: str = PERSON,
    ) -> int:
        """Queue a withdrawal for a study, or for every study whose newest report rests on a model (name, version).

        Returns how many were queued. cause: a sentence for a reader.
        """
        with transaction(self._engine, write=True) as connection:
            queued = revisions.recall(connection, cause, study_uid, model, actor)
        self._wake.call(Stage.REPORT)
        return queued

    def look_again(self, study_uid: str, cause: str, actor: str = PERSON) -> int:
        """Queue the study's images for analysis and a new report; how many images."""
        with transaction(self._engine, write=True) as connection:
            queued = revisions.look_again(connection, study_uid, cause, actor)
        if queued:
            self._wake.call(Stage.ANALYSE)
        return queued
