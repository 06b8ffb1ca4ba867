"""The role that looks: batches of instances in, findings out.

The models run in a process of their own (inference/model_host.py), of which this one is the master: an image that kills
it, kills no more than that.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import structlog

from config import Settings
from inference.analyser import Analyser, Looked, Source
from inference.aside import Apart
from inference.errors import PackageError, ProviderError, Undecided
from inference.finding_names import unknown_findings
from inference.model_host import ModelHost
from inference.package import Installed, installed
from ledger.errors import LeaseLost
from ledger.ledger import Ledger
from ledger.records import Job, Stage
from node import log_events, notices
from node.logging import describe
from node.looking.second import Lost, SecondLook, SecondWorker, failed, second_work
from node.looking.server import LookServer
from node.looking.turns import Turns
from node.looking.wire import uploads_dir
from node.running.lease import LeaseKeeper
from node.running.process import EXIT_CANNOT_SERVE, exit_at_latest, stop_on_signals
from node.running.worker import Worker
from node.trail import auditing
from node.wiring import open_ledger, owner

AGAIN = " It is looked at by itself, in another process, which may take its time."


def run(settings: Settings) -> int:
    """Analyse until told to stop; 78 when the models that the settings ask for cannot be had: no restart mends it."""
    stop = stop_on_signals()
    host = ModelHost(spare=settings.look.spare)
    exit_at_latest(stop, settings.node.stop_grace_s, host.kill)  # a child that hangs in native code ends by no signal
    log = structlog.get_logger()
    ledger = open_ledger(settings)
    try:
        found = _found(settings)
        below = (ledger.store.path("instances"), uploads_dir(settings))
        analyser = Analyser(settings, found.packages, ledger.store, None, found.refused, below, host.open)
    except (PackageError, ProviderError) as error:
        host.close()
        log.critical(log_events.CANNOT_SERVE, reason=str(error))
        notices.say_why(settings, "analyse", str(error))
        return EXIT_CANNOT_SERVE
    refused = [one.sentence for one in analyser.refused]
    log.info(log_events.MODELS_LOADED, models=analyser.models)
    auditing.models_loaded(ledger, {one.key: one.digest for one in found.packages})
    for one in analyser.refused:
        log.error(log_events.PACKAGE_REFUSED, model=one.name, reason=one.reason)
    said = {"provider": analyser.provider, "degraded": analyser.degraded, "models": analyser.models}
    notices.publish(settings, "analyse", refused=refused, **said)
    host.on_spare = _spare_told(settings, {"refused": refused, **said})
    if analyser.degraded:
        log.warning(log_events.PROVIDER_DEGRADED, provider=analyser.provider)
    turns = Turns()
    apart = host.apart()
    server = _serve_others(settings, analyser, turns, apart)
    second = _second_look(settings, ledger, analyser, host, apart, stop, turns)
    log.info(log_events.ROLE_STARTED, provider=analyser.provider)
    try:
        second.start()
        _worker(settings, ledger, analyser, turns, stop, second.called).run()
    finally:
        stop.set()
        second.close(settings.node.stop_grace_s / 2)
        if server is not None:
            server.stop()
        analyser.close()
        host.close()
    if second.error is not None:
        raise second.error
    return 0


def _worker(
    settings: Settings,
    ledger: Ledger,
    analyser: Analyser,
    turns: Turns,
    stop: threading.Event,
    called: threading.Event,
) -> Worker:
    """The loop of what nobody has tried yet."""
    lost = Lost(ledger, settings.look.max_attempts, stop, called.set)
    return Worker(
        ledger=ledger,
        stage=Stage.ANALYSE,
        owner=owner("analyse"),
        lease_s=settings.look.lease_s,
        max_attempts=settings.look.max_attempts,
        batch_max=settings.look.batch_max,
        work=Look(ledger, analyser, turns, lost).work,
        stop=stop,
        on_poisoned=lambda job, reason: ledger.park(job, reason, failed(reason)),
        tried=False,
    )


def _second_look(
    settings: Settings,
    ledger: Ledger,
    analyser: Analyser,
    host: ModelHost,
    apart: ModelHost,
    stop: threading.Event,
    turns: Turns,
) -> SecondLook:
    """The loop of what was tried before. It asks for no turn: its models are others, at a lower priority. Where they
    cannot be had, the role's own have the last try."""
    looker = Apart(analyser, settings, apart.sessions())
    lost = Lost(ledger, settings.look.max_attempts, stop)
    at_last = analyser.by(host.sessions(patient=True))
    alone, by_the_others = Look(ledger, looker, Turns(), lost), Look(ledger, at_last, turns, lost)
    worker = SecondWorker(
        ledger=ledger,
        stage=Stage.ANALYSE,
        owner=owner("analyse"),
        lease_s=settings.look.lease_s,
        max_attempts=settings.look.max_attempts,
        batch_max=1,
        work=second_work(alone.work, by_the_others.work, lost),
        stop=stop,
        on_poisoned=lambda job, reason: ledger.park(job, reason, failed(reason)),
        tried=True,
    )
    return SecondLook(worker, looker, apart)


def _serve_others(settings: Settings, analyser: Analyser, turns: Turns, apart: ModelHost) -> LookServer | None:
    """Uploads and pictures; without them the routed images are looked at all the same."""
    try:
        server = LookServer(settings, analyser, turns, apart.sessions())
        server.start()
    except OSError as error:
        structlog.get_logger().error(log_events.LOOK_NOT_SERVED, error=describe(error))
        return None
    return server


def _spare_told(settings: Settings, said: dict[str, Any]) -> Callable[[str], None]:
    """What health hears of the spare, beside what the role `said`."""

    def tell(why: str) -> None:
        notices.publish(settings, "analyse", **said, no_spare=why)

    return tell


def _found(settings: Settings) -> Installed:
    found = installed(settings.look)
    for manifest in found.passed_over:
        model = f"{manifest.name} {manifest.version}"
        structlog.get_logger().warning(log_events.PACKAGE_PASSED_OVER, model=model, licence=manifest.licence.weights)
    for sentence in unknown_findings(settings.decide, settings.recommend, found.manifests):
        structlog.get_logger().warning(log_events.FINDING_UNKNOWN, reason=sentence)
    light = tuple(replace(package, graphs=(), golden=None) for package in found.packages)  # who runs them reads them
    return replace(found, packages=light)


class Look:
    """One batch through the analyser and back into the ledger."""

    def __init__(
        self, ledger: Ledger, analyser: Analyser, turns: Turns | None = None, lost: Lost | None = None
    ) -> None:
        self._ledger = ledger
        self._analyser = analyser
        self._turns = turns or Turns()
        self._lost = lost or Lost(ledger, 1, threading.Event())

    def work(self, jobs: Sequence[Job], keeper: LeaseKeeper) -> None:
        """Analyse the instances of `jobs` together and finish each job by itself."""
        with self._turns.routed():
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
            if found.loss is not None:
                is_final = not isinstance(found.loss, Undecided)
                self._lost.give_back(job, f"{found.loss}.{'' if is_final else AGAIN}", is_final=is_final)
                return
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
