"""18: a study that kills the process that infers, in a whole node of real processes: put aside after as many attempts
as the settings allow, by a count that survives the process; everybody else's study is analysed.

No model that is allowed to load can crash, so every process that runs models is started with a module that sends it
SIGSEGV when it is about to run one over the poisoned picture. The node knows nothing of it. (Not before that module is
wanted: a role confines itself while it has one thread.) Once with a picture over which a run never ends instead: others
wait for as long as the answers of this model take, many times over, and not for the two minutes of one unknown.
"""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from unittest.mock import patch

import numpy as np
from pydicom.dataset import Dataset

from ledger.records import ResultStatus
from tests.support.chests import bright, save
from tests.support.dx import make_dx
from tests.support.packages import write_package
from tests.support.realdata import ROOT
from tests.support.running import RunningNode, storescu
from tests.support.waiting import wait_until
from tests.torture.experiment import Arm, Context, Control, register

ATTEMPTS = 3
OTHERS = 10
WITHIN_S = 120.0
CONTROL_WITHIN_S = 15.0
KNOWN = 24  # answers; twenty are enough (inference/patience.py)
HANG_WITHIN_S = 60.0
SPARE, CRASHED, ENDED = "spare_model_process_ready", "model_process_died", "model_process_ended"
HOOK = """
import importlib.util, os, signal, sys


class WhenImported:
    def __init__(self, name, change):
        self.name, self.change = name, change

    def find_spec(self, name, path=None, target=None):
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            self.change(module)

        spec.loader.exec_module = exec_module
        return spec


def deadly(module):
    run = module.ModelSession.run

    def over(session, images):
        means = images.mean(axis=(1, 2, 3))
        if ((means > 0.93) & (means < 0.99)).any():
            DIE
        return run(session, images)

    module.ModelSession.run = over


sys.meta_path.insert(0, WhenImported("inference.session", deadly))
"""
CRASH = HOOK.replace("DIE", "os.kill(os.getpid(), signal.SIGSEGV)")
HANG = HOOK.replace("DIE", "import threading; threading.Event().wait()")
UNLEARNED = """
def never(module):
    module.ENOUGH = 1 << 30


sys.meta_path.insert(0, WhenImported("inference.patience", never))
"""


def poison() -> Dataset:
    """Nearly white: no other picture here is."""
    values = np.random.default_rng(3).integers(3940, 4060, (256, 256)).astype(np.uint16)
    return make_dx(values, PatientAge="003Y")


@contextlib.contextmanager
def node(context: Context, attempts: int, threads: int, does: str = CRASH) -> Iterator[RunningNode]:
    hook = context.folder / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(does)
    root = context.folder / "models"
    write_package(root)
    look = f"[look]\nmodels_dir = {json.dumps(str(root))}\nthreads = {threads}\nmax_attempts = {attempts}\n"
    running = RunningNode(context.folder, extra=look, stop_grace_s=15)
    with patch.dict(os.environ, {"PYTHONPATH": f"{hook}:{ROOT}"}):
        try:
            running.start()
            yield running
        finally:
            running.stop()


def poisoned(context: Context) -> Arm:
    return _poisoned(context, ATTEMPTS, WITHIN_S)


def side_by_side(context: Context) -> Arm:
    """OpenVINO computes as many images at once as there are threads: what was beside the killer is looked at again, and
    waits for the models to be loaded apart."""
    return _poisoned(context, ATTEMPTS, WITHIN_S, threads=2)


def nobody_counts(context: Context) -> Arm:
    return _poisoned(context, 1_000_000, CONTROL_WITHIN_S)


def hanging(context: Context) -> Arm:
    return _hanging(context, HANG, HANG_WITHIN_S)


def nothing_is_learned(context: Context) -> Arm:
    return _hanging(context, HANG + UNLEARNED, CONTROL_WITHIN_S)


def _hanging(context: Context, does: str, within_s: float) -> Arm:
    """The picture itself is not waited for: by itself it gets all the time there is, twice."""
    arm = Arm()
    arm.counts.update(sent=0, acked=0, missing=0)
    with node(context, ATTEMPTS, 1, does) as running:
        wait_until(lambda: _seen(running, SPARE), WITHIN_S)
        before = _sent(context, arm, running, [bright() for _ in range(KNOWN)], WITHIN_S)
        bad, others = poison(), [bright() for _ in range(OTHERS)]
        meanwhile = _sent(context, arm, running, [*others[:3], bad, *others[3:]], within_s, bad.StudyInstanceUID)
        arm.counts["cut short"] = _seen(running, ENDED)
        arm.counts["roles died"] = _roles_died(running)
        arm.counts["parked"] = len(running.ledger.parked())
    arm.figures["others waited at most"] = f"before {max(before):.1f} s, meanwhile {max(meanwhile):.1f} s"
    arm.require(arm.counts["roles died"] == 0, "the role died of one study")
    arm.require(arm.counts["cut short"] == 1, f"{arm.counts['cut short']} processes were ended for one study")
    arm.require(arm.counts["parked"] == 0, "a study was put aside before it had all the time there is")
    return arm


def _roles_died(running: RunningNode) -> int:
    return sum(line["event"] == "role_died" and line["died"] == "analyse" for line in running.logged())


def _poisoned(context: Context, attempts: int, within_s: float, threads: int = 1) -> Arm:
    arm = Arm()
    arm.counts.update(sent=0, acked=0, missing=0)
    with node(context, attempts, threads) as running:
        wait_until(lambda: _seen(running, SPARE), WITHIN_S)  # a node that has run for a while
        before = _sent(context, arm, running, [bright() for _ in range(OTHERS)], WITHIN_S)
        bad = poison()
        began = time.monotonic()
        others = [bright() for _ in range(OTHERS)]
        meanwhile = _sent(context, arm, running, [*others[:3], bad, *others[3:]], within_s, bad.StudyInstanceUID)
        _put_aside(arm, running, bad, began + within_s)
        arm.figures["put aside after"] = f"{time.monotonic() - began:.1f} s"
        arm.counts["crashes"] = _seen(running, CRASHED)
        arm.counts["roles died"] = _roles_died(running)
        after = _sent(context, arm, running, [bright() for _ in range(OTHERS)], within_s) if not arm.broken else before
    p95 = {name: float(np.percentile(times, 95)) for name, times in
           (("before", before), ("meanwhile", meanwhile), ("after", after))}  # fmt: skip
    arm.figures["others p95"] = ", ".join(f"{name} {value:.1f} s" for name, value in p95.items())
    arm.require(arm.counts["crashes"] <= ATTEMPTS, f"the process died {arm.counts['crashes']} times of one study")
    arm.require(arm.counts["roles died"] == 0, "the role died of one study")
    arm.goal(p95["meanwhile"] <= 2 * p95["before"], f"others' p95 {p95['meanwhile']:.1f} s, wanted <= 2 x before")
    return arm


def _sent(
    context: Context, arm: Arm, running: RunningNode, data_sets: list[Dataset], within_s: float, but: str = ""
) -> list[float]:
    """Seconds from the end of the association to the result, of each study but one."""
    files = [save(ds, context.scratch()) for ds in data_sets]
    answer = storescu(running.port, *files)
    began = time.monotonic()
    arm.counts["sent"] += len(files)
    arm.counts["acked"] += len(files) if answer.returncode == 0 else 0
    arm.require(answer.returncode == 0, "storescu was not served")
    waiting = [ds.StudyInstanceUID for ds in data_sets if but != ds.StudyInstanceUID]
    spent: list[float] = []

    def analysed() -> bool:
        for uid in list(waiting):
            (item,) = running.ledger.study_instances(uid)
            if any(result.status is ResultStatus.ANALYSED for result in item.results):
                waiting.remove(uid)
                spent.append(time.monotonic() - began)
        return not waiting

    with contextlib.suppress(TimeoutError):
        wait_until(analysed, within_s, 0.02)
    arm.counts["missing"] += len(waiting)
    arm.require(not waiting, f"{len(waiting)} studies of others were never analysed")
    return [*spent, *[within_s] * len(waiting)]


def _seen(running: RunningNode, event: str) -> int:
    return sum(line["event"] == event for line in running.logged())


def _put_aside(arm: Arm, running: RunningNode, bad: Dataset, until: float) -> None:
    def parked() -> bool:
        return any(job.study_instance_uid == bad.StudyInstanceUID for job in running.ledger.parked())

    try:
        wait_until(parked, max(1.0, until - time.monotonic()), 0.05)
    except TimeoutError:
        arm.require(False, "the study that kills was not put aside")
        return
    (item,) = running.ledger.study_instances(bad.StudyInstanceUID)
    said = [result.status for result in item.results]
    arm.require(said == [ResultStatus.FAILED], f"of the study that kills is said: {said}")


register(
    18,
    "a study that kills the process that infers",
    poisoned,
    suite="hospital",
    nobody_counts=Control(r"the study that kills was not put aside", nobody_counts),
)
register(18, "the same with two images side by side", side_by_side, "batch", suite="hospital")
register(
    18,
    "a study that hangs it",
    hanging,
    "hang",
    suite="hospital",
    nothing_is_learned=Control(r"studies of others were never analysed", nothing_is_learned),
)
