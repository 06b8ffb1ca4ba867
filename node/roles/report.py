"""The role that says: findings of a study in, stored DICOM objects and queued deliveries out."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import structlog

from config import Settings
from inference.slices import Geometry, read_geometry
from inference.volume import volumes_of
from ledger.ledger import Ledger
from ledger.records import InstanceRef, Job, ReportKind, ResultObject, Stage, StudyFindings
from node import log_events, notices
from node.lease import LeaseKeeper
from node.process import exit_at_latest, stop_on_signals
from node.wiring import open_ledger, owner
from node.worker import Worker
from sr_writer.build import build_objects
from sr_writer.warm_up import warm_up

DEFAULT_PROFILE = "generic-pacs"


def run(settings: Settings) -> int:
    """Write reports until told to stop."""
    stop = stop_on_signals()
    exit_at_latest(stop, settings.node.stop_grace_s)
    ledger = open_ledger(settings)
    warm_up(settings)
    notices.publish(settings, "report", warm=True)
    structlog.get_logger().info(log_events.ROLE_STARTED)
    worker = Worker(
        ledger=ledger,
        stage=Stage.REPORT,
        owner=owner("report"),
        lease_s=settings.report.lease_s,
        max_attempts=settings.report.max_attempts,
        batch_max=1,
        work=Say(ledger, settings).work,
        stop=stop,
    )
    worker.run()
    return 0


class Say:
    """One report: built once, its bytes kept, its deliveries queued."""

    def __init__(self, ledger: Ledger, settings: Settings) -> None:
        self._ledger = ledger
        self._settings = settings
        self._destinations = [destination.key for destination in settings.destinations]

    def work(self, jobs: Sequence[Job], keeper: LeaseKeeper) -> None:
        """Report each study of `jobs`."""
        for job in jobs:
            self._report(job, keeper)

    def _report(self, job: Job, keeper: LeaseKeeper) -> None:
        findings = self._ledger.study_findings(job)
        if findings is None:
            keeper.release(job)
            self._ledger.finish_report(job, None)
            return
        if findings.kind is ReportKind.FINAL:  # half a series has no volume
            findings = replace(findings, volumes=volumes_of(findings.looked_at, self._geometry))
        objects = [(made, self._keep(made)) for made in self._build(findings)]
        keeper.release(job)
        sends = {key: [made.sop_instance_uid for made, _ in objects] for key in self._destinations}
        self._ledger.finish_report(job, findings, objects, sends)
        structlog.get_logger().info(
            log_events.REPORT_BUILT,
            study_instance_uid=job.study_instance_uid,
            kind=findings.kind.value,
            priority=findings.priority.value,
            objects=[made.kind for made, _ in objects],
        )

    def _geometry(self, instance: InstanceRef) -> Geometry:
        return read_geometry(self._ledger.store.path(instance.path))

    def _build(self, findings: StudyFindings) -> list[ResultObject]:
        profiles = {str(destination.profile) for destination in self._settings.destinations} or {DEFAULT_PROFILE}
        store, installation = self._ledger.store, self._ledger.installation_uid
        return [
            made
            for profile in sorted(profiles)
            for made in build_objects(findings, store, self._settings, installation, profile)
        ]

    def _keep(self, made: ResultObject) -> str:
        digest = hashlib.sha256(made.content).hexdigest()
        return self._ledger.store.put("objects", digest, ".dcm", made.content)
