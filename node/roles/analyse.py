"""The role that looks: batches of instances in, findings out."""

from collections.abc import Sequence

import structlog

from config import Settings
from inference.analyser import Analyser, Looked, Source
from inference.errors import PackageError, ProviderError
from inference.package import Installed, installed
from ledger.errors import LeaseLost
from ledger.ledger import Ledger
from ledger.records import ImageResult, Job, ResultStatus, Stage, TriagePriority
from node import log_events, notices
from node.lease import LeaseKeeper
from node.process import EXIT_CANNOT_SERVE, exit_at_latest, stop_on_signals
from node.wiring import open_ledger, owner
from node.worker import Worker


def run(settings: Settings) -> int:
    """Analyse until told to stop; 78 when the models that the settings ask for cannot be had: no restart mends it."""
    stop = stop_on_signals()
    exit_at_latest(stop, settings.node.stop_grace_s)
    log = structlog.get_logger()
    ledger = open_ledger(settings)
    try:
        found = _found(settings)
        analyser = Analyser(settings, found.packages, ledger.store, refused=found.refused)
    except (PackageError, ProviderError) as error:
        log.critical(log_events.CANNOT_SERVE, reason=str(error))
        notices.say_why(settings, "analyse", str(error))
        return EXIT_CANNOT_SERVE
    refused = [one.sentence for one in analyser.refused]
    log.info(log_events.MODELS_LOADED, models=analyser.models)
    for one in analyser.refused:
        log.error(log_events.PACKAGE_REFUSED, model=one.name, reason=one.reason)
    notices.publish(settings, "analyse", provider=analyser.provider, degraded=analyser.degraded, refused=refused)
    if analyser.degraded:
        log.warning(log_events.PROVIDER_DEGRADED, provider=analyser.provider)
    log.info(log_events.ROLE_STARTED, provider=analyser.provider)
    try:
        worker = Worker(
            ledger=ledger,
            stage=Stage.ANALYSE,
            owner=owner("analyse"),
            lease_s=settings.look.lease_s,
            max_attempts=settings.look.max_attempts,
            batch_max=settings.look.batch_max,
            work=Look(ledger, analyser).work,
            stop=stop,
            on_poisoned=lambda job, reason: ledger.park(job, reason, failed(reason)),
        )
        worker.run()
    finally:
        analyser.close()
    return 0


def _found(settings: Settings) -> Installed:
    found = installed(settings.look)
    for manifest in found.passed_over:
        model = f"{manifest.name} {manifest.version}"
        structlog.get_logger().warning(log_events.PACKAGE_PASSED_OVER, model=model, licence=manifest.licence.weights)
    return found


class Look:
    """One batch through the analyser and back into the ledger."""

    def __init__(self, ledger: Ledger, analyser: Analyser) -> None:
        self._ledger = ledger
        self._analyser = analyser

    def work(self, jobs: Sequence[Job], keeper: LeaseKeeper) -> None:
        """Analyse the instances of `jobs` together and finish each job by itself."""
        looked = self._analyser.analyse([self._source(job) for job in jobs])
        for job, found in zip(jobs, looked, strict=True):
            keeper.release(job)
            self._finish(job, found)

    def _source(self, job: Job) -> Source:
        assert job.instance is not None
        return Source(path=self._ledger.store.path(job.instance.path), received_at=job.instance.received_at)

    def _finish(self, job: Job, found: Looked) -> None:
        log = structlog.get_logger().bind(job_id=job.job_id, study_instance_uid=job.study_instance_uid)
        try:
            self._ledger.finish_analysis(job, found.results)
        except LeaseLost:
            log.warning(log_events.JOB_DROPPED)
            return
        for result in found.results:
            log.info(
                log_events.INSTANCE_LOOKED_AT,
                status=result.status.value,
                reason_code=result.reason_code,
                priority=result.priority and result.priority.value,
                duration_ms=round(result.duration_ms, 1),
            )


def failed(reason: str) -> ImageResult:
    """What is said of an image that could not be judged in any attempt: listed above LOW, never as LOW."""
    return ImageResult(ResultStatus.FAILED, reason, "attempts_exhausted", TriagePriority.NOT_ASSESSED)
