"""36: every data set of every experiment names one invented patient. Nothing but the store may ever have heard of him.

Runs last: it reads the logs, the metrics and every other file that the experiments before it left behind.
"""

from pathlib import Path

import structlog

from scp.admission.admitter import AdmissionSink
from scp.status import Answer
from tests.torture import sentinel
from tests.torture.experiment import Arm, Context, Control, register
from tests.torture.journal import Journal
from tests.torture.senders import Senders

OF_THE_STORE = frozenset([*sentinel.MAY_HOLD, "sent"])  # and what a sender keeps in files
OUR_OWN = frozenset([".trace"])  # what the shim wrote down of the store's files


def search(context: Context, folder: Path) -> Arm:
    arm = Arm()
    arm.counts.update(rounds=1, phi=0)
    size = 0
    arms = [entry for entry in folder.iterdir() if entry.name.endswith("-holds") or entry.name == "nursery"]
    for path in sorted(path for arm_folder in arms for path in arm_folder.rglob("*")):
        inside = OF_THE_STORE.intersection(path.relative_to(folder).parts)
        if path.is_symlink() or inside or path.suffix in OUR_OWN or not path.is_file():
            continue
        content = path.read_bytes()
        size += len(content)
        arm.counts["files read"] += 1
        hits = sentinel.hits_in(content)
        arm.counts["phi"] += hits
        arm.require(not hits, f"the patient is named in {path.relative_to(folder)}")
    arm.require(size > 0, "there was nothing to read")
    arm.figures["read"] = f"{size / 1e6:.1f} MB"
    return arm


def everything(context: Context) -> Arm:
    """What all the others left, and, should this experiment run alone, some traffic of its own."""
    journal = _traffic(context, "")
    arm = search(context, context.folder.parent)
    arm.counts.update(journal.counts())
    hits = sum(sentinel.hits_in(comment.encode()) for comment in journal.comments())
    arm.require(not hits, "the patient is named in an Error Comment")
    return arm


def _traffic(context: Context, fault: str) -> Journal:
    journal = Journal()
    with context.receiver(faults=[fault] if fault else []) as victim:
        with Senders(lambda: victim.address, journal, 1, count=2, each=10) as senders:
            senders.join(20)
        victim.stop()
    return journal


def tell_the_log() -> None:
    """Fault: a line of the log that means well."""
    real = AdmissionSink.commit

    def commit(self: AdmissionSink) -> Answer:
        if self._part is not None:
            structlog.get_logger().info("storing", head=self._part.path.read_bytes().decode("ascii", "replace"))
        return real(self)

    AdmissionSink.commit = commit  # type: ignore[method-assign]


def _told(context: Context) -> Arm:
    journal = _traffic(context, "sentinels:tell_the_log")
    arm = search(context, context.folder.parent)
    arm.counts.update(journal.counts())
    return arm


register(
    36,
    "the patient is named nowhere but in the store",
    everything,
    a_log_that_tells=Control(r"the patient is named in .*\.log", _told),
)
