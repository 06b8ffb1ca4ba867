"""Drives a ledger through a study's life as the roles do, without any of them."""

import hashlib
from dataclasses import replace

from ledger.completion import Completion
from ledger.delivery_records import DeliveryOutcome, DeliveryState
from ledger.ledger import Ledger
from ledger.records import (
    Disposition,
    ImageResult,
    Job,
    ReceivedInstance,
    ReportKind,
    ResultObject,
    Stage,
    StoredObject,
    StudyFindings,
    TriagePriority,
)
from tests.support.ledgers import all_to
from tests.support.records import judged, received, stored_object
from tests.support.waiting import wait_until

PACS, OTHER = "PACS@127.0.0.1:104", "OTHER@127.0.0.1:105"
HIGH, MEDIUM, LOW = TriagePriority.HIGH, TriagePriority.MEDIUM, TriagePriority.LOW
STUDY = "1.2.3"
ANNA, BERTA = "a" * 64, "b" * 64  # patient digests
SOON_S = 0.01
HOUR_S = 3600.0


class Story:
    """One study at a time, unless told otherwise."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def claim(self, stage: Stage, destination: str | None = None) -> list[Job]:
        return self.ledger.claim(stage, "test", 10, 60.0, destination)

    def next(self, stage: Stage, destination: str | None = None) -> Job:
        """The next job of a stage, waited for and claimed alone."""
        found: list[Job] = []

        def due() -> bool:
            found.extend(self.ledger.claim(stage, "test", 1, 60.0, destination))
            return bool(found)

        wait_until(due, within_s=60)
        return found[0]

    def receive(
        self, study: str = STUDY, patient: str = ANNA, quiet_s: float = SOON_S, **changes: object
    ) -> ReceivedInstance:
        instance = received(study, **({"patient_digest": patient} | changes))
        self.ledger.admit(instance, Completion(quiet_s))
        return instance

    def receive_again(
        self, instance: ReceivedInstance, patient: str = ANNA, quiet_s: float = SOON_S
    ) -> ReceivedInstance:
        """Other bytes under the same SOP Instance UID."""
        content = hashlib.sha256(f"{instance.sha256} {patient}".encode()).hexdigest()
        other = replace(instance, sha256=content, path=f"instances/{content}.dcm", patient_digest=patient)
        self.ledger.admit(other, Completion(quiet_s))
        return other

    def look(self, *results: ImageResult) -> None:
        """Analyse what is next."""
        self.ledger.finish_analysis(self.next(Stage.ANALYSE), results or (judged(HIGH),))

    def image(self, *results: ImageResult, **changes: object) -> ReceivedInstance:
        """Received and analysed."""
        instance = self.receive(**changes)  # type: ignore[arg-type]
        self.look(*results)
        return instance

    def note(self, code: str, *rejected: ReceivedInstance, study: str = STUDY) -> None:
        """A rejection note."""
        self.receive(
            study,
            patient="",
            disposition=Disposition.REJECTION_NOTE,
            rejection=code,
            rejects=tuple(instance.sop_instance_uid for instance in rejected),
        )

    def report(
        self, *destinations: str, notify: tuple[str, ...] = (), forms: int = 1, job: Job | None = None
    ) -> StudyFindings | None:
        """The next report job, finished: one object, or `forms` of one choice."""
        job = job or self.next(Stage.REPORT)
        findings = self.ledger.study_findings(job)
        made: list[tuple[ResultObject, str]] = []
        for preference in range(forms if findings else 0):
            made_object, path = stored_object(self.ledger.store)
            choice = "sr" if forms > 1 else ""
            made.append((replace(made_object, choice=choice, preference=preference), path))
        self.ledger.finish_report(job, findings, made, all_to(made, destinations or (PACS,)), notify)
        return findings

    def final(self, *destinations: str, notify: tuple[str, ...] = ()) -> StudyFindings | None:
        """Reports up to the next final or withdrawn one; the last of them that said anything."""
        said: StudyFindings | None = None
        while True:
            job = self.next(Stage.REPORT)
            said = self.report(*destinations, notify=notify, job=job) or said
            if job.report_kind is not ReportKind.PROVISIONAL:
                return said

    def deliver(
        self,
        destination: str = PACS,
        state: DeliveryState = DeliveryState.DELIVERED,
        status: int | None = 0,
        prove_after_s: float | None = None,
        context: str = "Enhanced SR Storage, Explicit VR Little Endian",
    ) -> list[StoredObject]:
        """The next delivery; returns what left. context: empty when nothing was."""
        job = self.next(Stage.DELIVER, destination)
        objects = self.ledger.undelivered(job)
        for stored in objects:
            self.ledger.record_delivery(job, DeliveryOutcome(stored.object_id, state, status, "", context))
        if state is DeliveryState.WAITING:
            self.ledger.retry(job, "later", 0)
        else:
            self.ledger.finish_delivery(job, prove_after_s)
        return objects

    def reported(self, *results: ImageResult, **changes: object) -> ReceivedInstance:
        """An image received, analysed, reported for good and delivered."""
        instance = self.image(*results, **changes)
        assert self.final() is not None
        while self.claimable(Stage.DELIVER):
            self.deliver()
        return instance

    def claimable(self, stage: Stage) -> bool:
        """Whether a job of the stage is due; none is taken."""
        jobs = self.ledger.claim(stage, "peek", 1, 60.0)
        for job in jobs:
            self.ledger.abandon("peek")
            assert job
        return bool(jobs)

    def states(self, study: str = STUDY) -> list[DeliveryState | None]:
        """Of every object of the study, oldest first."""
        return [item.state for item in self.ledger.study_objects(study)]

    def events(self, study: str = STUDY) -> list[str]:
        return [event.name for event in self.ledger.events(study)]

    @property
    def priority(self) -> TriagePriority | None:
        return self.ledger.worklist(include_hidden=True)[0].priority
