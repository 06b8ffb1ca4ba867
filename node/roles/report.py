"""The role that says: findings of a study in, stored DICOM objects and queued deliveries out."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import structlog

from config import Settings
from inference.slices import Geometry, read_geometry
from inference.volume import volumes_of
from ledger.clinical import SINK
from ledger.ledger import Ledger
from ledger.records import InstanceRef, Job, ReportKind, ResultObject, Stage, StudyFindings
from node import log_events, notices
from node.roles.counting import StudyCount
from node.running.lease import LeaseKeeper
from node.running.process import exit_at_latest, stop_on_signals
from node.running.worker import Worker
from node.wiring import open_ledger, owner
from sr_writer.build import build_objects, plan_of
from sr_writer.errors import NotProven
from sr_writer.profiles import Plan, plain
from sr_writer.warm_up import warm_up


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
        self._count = StudyCount(ledger, settings)

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
        if not job.is_heartbeat and self._count.puts_back(job):
            keeper.release(job)
            return
        if findings.kind is ReportKind.FINAL:  # half a series has no volume
            findings = replace(findings, volumes=volumes_of(findings.looked_at, self._geometry))
        try:
            built, sends = self._heartbeat(findings) if job.is_heartbeat else self._build(findings)
        except NotProven as error:
            structlog.get_logger().error(log_events.WRONG_PATIENT_STOPPED, job_id=job.job_id, reason=str(error))
            keeper.release(job)
            self._ledger.stop_report(job, str(error))
            return
        objects = [(made, self._keep(made)) for made in built]
        keeper.release(job)
        listeners = [] if job.is_heartbeat else self._listeners(findings)
        self._ledger.finish_report(job, findings, objects, sends, listeners)
        structlog.get_logger().info(
            log_events.REPORT_BUILT,
            study_instance_uid=job.study_instance_uid,
            kind=findings.kind.value,
            priority=findings.priority.value,
            objects=[made.kind for made, _ in objects],
        )

    def _geometry(self, instance: InstanceRef) -> Geometry:
        return read_geometry(self._ledger.store.path(instance.path))

    def _listeners(self, findings: StudyFindings) -> list[str]:
        """The adapters that hear of it: those that want it, and those that heard of the study before.

        That nothing changed since they were told is not told.
        """
        if findings.confirms:
            return []
        told = self._ledger.adapters_told(findings.study_instance_uid) if self._settings.adapters else set()
        return [one.key for one in self._settings.adapters if one.key in told or one.wants(findings.priority.value)]

    def _heartbeat(self, findings: StudyFindings) -> tuple[list[ResultObject], dict[str, list[str]]]:
        """Of the node's own study: for its own sink (node/roles/sink.py), whatever the settings name."""
        made = self._objects(findings, plan_of(plain(), findings))
        return made, {SINK: [one.sop_instance_uid for one in made]}

    def _build(self, findings: StudyFindings) -> tuple[list[ResultObject], dict[str, list[str]]]:
        """Every object once, and which of them each destination gets; equal plans share theirs.

        Where no destination wants anything the report is made and kept all the same: it is shown, and adapters tell it.
        """
        plans = {one.key: plan_of(one, findings) for one in self._settings.destinations}
        made = {
            plan: self._objects(findings, plan, [key for key, its in plans.items() if its == plan])
            for plan in dict.fromkeys(plans.values())
        }
        if not any(made.values()):
            made = {(kept := plan_of(plain(), findings)): self._objects(findings, kept)}
        sends = {key: [one.sop_instance_uid for one in made.get(plan, [])] for key, plan in plans.items()}
        return [one for objects in made.values() for one in objects], sends

    def _objects(
        self, findings: StudyFindings, plan: Plan, destinations: Sequence[str] | None = None
    ) -> list[ResultObject]:
        store, installation = self._ledger.store, self._ledger.installation_uid
        return build_objects(findings, store, self._settings, installation, plan, destinations)

    def _keep(self, made: ResultObject) -> str:
        digest = hashlib.sha256(made.content).hexdigest()
        return self._ledger.store.put("objects", digest, ".dcm", made.content)
