"""A ledger full of real reports, and the deliver role as a process of its own that sends them and may be killed."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

from pydicom.dataset import Dataset

from config import Settings, load_settings
from ledger.completion import Completion
from ledger.delivery_records import DeliveryState
from ledger.ledger import Ledger
from ledger.records import ImageResult, Job, Stage, TriagePriority
from node.roles.report import Say
from node.running.lease import LeaseKeeper
from node.wiring import open_ledger, owner_prefix
from tests.support.dx import make_dx
from tests.support.findings import analysed, finding, picture
from tests.support.realdata import ROOT
from tests.support.records import received
from tests.support.sink import Sink
from tests.support.waiting import wait_until

SETTLED = (DeliveryState.DELIVERED, DeliveryState.NOT_NEEDED)


def site(folder: Path, port: int, *, response_timeout_s: float = 30.0, more: str = "") -> Path:
    """A settings file with one impatient destination at `port`, which offers no proof."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "opentriage.toml"
    path.write_text(
        f'[node]\nstate_dir = "{folder / "state"}"\nstop_grace_s = 15\n'
        f"[deliver]\nretry_first_s = 0.05\nretry_max_s = 0.2\nconnect_timeout_s = 3.0\n"
        f"response_timeout_s = {response_timeout_s}\n"
        f'[[destinations]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {port}\nproof = []\n{more}',
        encoding="utf-8",
    )
    return path


def admit(ledger: Ledger, ds: Dataset, complete_after_s: float = 0.01) -> Job:
    """The image, received as the receiver would; the analysis job that waits for it, claimed."""
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    content = buffer.getvalue()
    length = int.from_bytes(content[140:144], "little")
    digest = hashlib.sha256(content[144 + length :]).hexdigest()
    ledger.admit(
        received(
            str(ds.StudyInstanceUID),
            sop_class_uid=str(ds.SOPClassUID),
            sop_instance_uid=str(ds.SOPInstanceUID),
            series_instance_uid=str(ds.SeriesInstanceUID),
            sha256=digest,
            size_bytes=len(content),
            path=ledger.store.put("instances", digest, ".dcm", content),
        ),
        Completion(complete_after_s),
    )
    return next(job for job in ledger.claim(Stage.ANALYSE, "test", 1, 60))


def look(ledger: Ledger, job: Job, ds: Dataset, priority: TriagePriority) -> None:
    """What a model said of it. HIGH and MEDIUM: pneumonia."""
    ledger.finish_analysis(job, [said(ledger, ds, priority)])


def said(ledger: Ledger, ds: Dataset, priority: TriagePriority) -> ImageResult:
    flagged = priority in (TriagePriority.HIGH, TriagePriority.MEDIUM)
    shown = picture(ledger.store, ds) if flagged else None
    probability = {TriagePriority.HIGH: 0.93, TriagePriority.MEDIUM: 0.6}.get(priority, 0.1)
    return replace(analysed(finding(probability=probability), priority=priority), display_path=shown)


def report(ledger: Ledger, settings: Settings, studies: Iterable[str]) -> None:
    """The report role's own work, until every study has a report, or a person must look at why it has none."""
    say, missing = Say(ledger, settings), set(studies)
    while missing:
        [job] = wait_until(lambda: ledger.claim(Stage.REPORT, "test", 1, 60), 30)
        with LeaseKeeper(ledger, [job], 60) as keeper:
            say.work([job], keeper)
        parked = {one.study_instance_uid for one in ledger.parked()}
        if ledger.study_objects(job.study_instance_uid) or job.study_instance_uid in parked:
            missing.discard(job.study_instance_uid)


def fill(ledger: Ledger, settings: Settings, priorities: Iterable[TriagePriority]) -> dict[str, TriagePriority]:
    """One study and its report for each priority; study UID -> priority."""
    made: dict[str, TriagePriority] = {}
    for number, priority in enumerate(priorities, start=1):
        ds = make_dx(PatientID=f"P{number}", PatientName=f"Patient^{number}")
        high = priority is TriagePriority.HIGH  # whose provisional report leaves at once: no other is made
        look(ledger, admit(ledger, ds, 3600.0 if high else 0.01), ds, priority)
        made[str(ds.StudyInstanceUID)] = priority
    report(ledger, settings, made)
    return made


@dataclass(frozen=True)
class Count:
    """What the sink holds, held against what the ledger says was to be sent."""

    results: int  # one for each study and kind of object
    arrivals: int  # C-STOREs that were stored, resends included
    missing: int  # results of which the sink holds nothing
    twice: int  # results of which it holds more than one SOP instance
    strangers: int  # SOP instances that no ledger knows
    changed: int  # SOP instances that came with different bytes
    undelivered: int  # by the ledger

    @property
    def is_exact(self) -> bool:
        """Exactly one object per result, its bytes always the same, and the ledger knows it."""
        return not (self.missing or self.twice or self.strangers or self.changed or self.undelivered)


def count(ledger: Ledger, studies: Iterable[str], sink: Sink) -> Count:
    sent = [(uid, one) for uid in studies for one in ledger.study_objects(uid) if one.destination]
    wanted: dict[tuple[str, str], set[str]] = defaultdict(set)  # forms of one choice are of one kind
    for uid, one in sent:
        wanted[uid, one.kind].add(one.sop_instance_uid)
    holds = sink.holds()
    there = [len(uids & set(holds)) for uids in wanted.values()]
    return Count(
        results=len(wanted),
        arrivals=len(sink.stored()),
        missing=sum(number == 0 for number in there),
        twice=sum(number > 1 for number in there),
        strangers=len(set(holds) - {one.sop_instance_uid for _, one in sent}),
        changed=sum(len(hashes) > 1 for hashes in holds.values()),
        undelivered=sum(one.state not in SETTLED for _, one in sent),
    )


def jobs_left(ledger: Ledger) -> int:
    """Deliveries that are queued or running."""
    jobs = ledger.counts()["jobs"]
    return sum(number for key, number in jobs.items() if key in ("deliver:queued", "deliver:running"))


class DeliverProcess:
    """A nursery of deliver roles. One at a time; `kill` is SIGKILL."""

    def __init__(self, config: Path, fault: str = "none") -> None:
        self._settings = load_settings(config)
        self.ledger = open_ledger(self._settings)
        self.log = config.with_name("deliver.log")
        self.pid = 0
        self._started = threading.Event()
        with self.log.open("ab") as log:
            self._nursery = subprocess.Popen(
                [sys.executable, "-m", "tests.support.deliver_process", str(config), fault],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
                text=True,
            )
        self._says("ready")

    def __enter__(self) -> "DeliverProcess":
        return self

    def __exit__(self, *error: object) -> None:
        if self._started.is_set():
            self.kill()
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        self._nursery.stdin.close()
        self._nursery.wait(20)
        self._nursery.stdout.close()
        self.ledger.close()

    def _says(self, expected: str = "") -> str:
        assert self._nursery.stdout is not None
        line = self._nursery.stdout.readline().strip()
        if not line or (expected and line != expected):
            raise RuntimeError(f"the nursery said {line!r}:\n{self.log.read_text()[-4000:]}")
        return line

    def start(self) -> None:
        """A new deliver role."""
        assert self._nursery.stdin is not None
        self._nursery.stdin.write("go\n")
        self._nursery.stdin.flush()
        self.pid = int(self._says())
        self._started.set()

    def freeze(self) -> None:
        """SIGSTOP: what is sent to it now is received by nobody."""
        self._started.wait(20)
        os.kill(self.pid, signal.SIGSTOP)

    def shoot(self) -> None:
        """SIGKILL; `bury` must follow."""
        self._started.wait(20)
        os.kill(self.pid, signal.SIGKILL)

    def bury(self) -> None:
        """When it is gone, give its jobs back, as the supervisor does."""
        self._says("gone")
        self._started.clear()
        self.ledger.abandon(owner_prefix("deliver", self.pid))

    def kill(self) -> None:
        self.shoot()
        self.bury()
