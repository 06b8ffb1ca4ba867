"""The demonstration: a throwaway node and a stand-in PACS on loopback, driven over the network like any other."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from socket import socket

from pydicom import dcmread

from config import Settings, load_settings
from ledger.errors import OpenTriageError
from ledger.ledger import Ledger
from ledger.worklist import WorklistEntry
from node import notices
from node.running.process import PARENT_PIPE
from node.telling.overlay import write_overlay
from node.trying.moment import make_new
from node.trying.sending import Peer, Sent, send_files
from node.trying.stand_in_pacs import AE_TITLE, Arrival, StandInPacs
from node.wiring import open_ledger

SAMPLES = Path(__file__).parents[1] / "samples"
READY_WITHIN_S = 180.0  # a busy machine is no failure
NO_PROGRESS_S = 180.0
COMPLETE_AFTER_S = 2.0
A_LIFETIME_H = 24.0 * 365 * 200
OVERLAY_MODALITY = "OT"


class DemoFailed(OpenTriageError):
    """The demonstration could not be shown; the text says what to look at."""


@dataclass
class Demo:
    """One demonstration in a folder of its own, which stays for the user to look at."""

    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="opentriage-demo-")))
    extra: str = ""  # more TOML for the node
    sent: list[Sent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.pacs = StandInPacs(self.folder / "pacs")
        self.config = self.folder / "opentriage.toml"
        self.log = self.folder / "node.log"
        self._node: subprocess.Popen[bytes] | None = None
        self._settings = Settings()
        self._ledger: Ledger | None = None

    def start(self, own_files: bool) -> None:
        """Start the stand-in PACS and the node; returns once the node has answered its own C-ECHO."""
        self.config.write_text(_config(self.folder, self.pacs.start(), own_files) + self.extra, encoding="utf-8")
        self._settings = load_settings(self.config)
        command = [sys.executable, "-m", "node.cli", "serve", "--config", str(self.config)]
        with self.log.open("wb") as log:
            self._node = subprocess.Popen(
                command, stdin=subprocess.PIPE, stderr=log, stdout=log, env={**os.environ, PARENT_PIPE: "1"}
            )
        deadline = time.monotonic() + READY_WITHIN_S
        while not notices.read(self._settings, "node").get("ready"):
            if self._node.poll() is not None or time.monotonic() > deadline:
                raise DemoFailed(f"the node did not get ready; its log is {self.log}")
            time.sleep(0.05)
        self._ledger = open_ledger(self._settings)

    def send(self, files: Sequence[Path], on_sent: Callable[[Sent], None]) -> None:
        """Send the files to the node as a modality would."""

        def note(one: Sent) -> None:
            self.sent.append(one)
            on_sent(one)

        send_files(files, Peer(self._settings.receive.ae_title, "127.0.0.1", self._settings.receive.port), note)
        if not any(one.status == 0 for one in self.sent):
            raise DemoFailed("no file was accepted: " + "; ".join(sorted({one.text for one in self.sent})))

    def wait(self, on_progress: Callable[[int, int], None]) -> list[WorklistEntry]:
        """Wait until nothing is left to do; the triage list. on_progress: (jobs done, jobs known)."""
        assert self._ledger is not None
        last, since = -1, time.monotonic()
        while True:
            jobs = self._ledger.counts()["jobs"]
            left = sum(count for key, count in jobs.items() if key.endswith((":queued", ":running")))
            known = sum(jobs.values())
            on_progress(known - left, known)
            if left == 0:
                return self._ledger.worklist(include_hidden=True)
            if known - left != last:
                last, since = known - left, time.monotonic()
            if self._node is None or self._node.poll() is not None or time.monotonic() - since > NO_PROGRESS_S:
                raise DemoFailed(f"the node stopped working: {left} jobs are left; its log is {self.log}")
            time.sleep(0.05)

    def seconds_to_pacs(self, entry: WorklistEntry) -> float | None:
        """From the study's last byte to its first report in the PACS; None when there is no report."""
        times = [arrival.at for arrival in self.arrivals(entry.study_instance_uid)]
        return (min(times) - entry.last_received_at).total_seconds() if times else None

    def arrivals(self, study_uid: str) -> list[Arrival]:
        """What the PACS got for one study."""
        return [arrival for arrival in self.pacs.arrivals if arrival.study_instance_uid == study_uid]

    def overlays(self) -> list[Path]:
        """The Secondary Captures that came to the PACS, as PNG files."""
        made: list[Path] = []
        for arrival in self.pacs.arrivals:
            if arrival.modality == OVERLAY_MODALITY:
                picture = self.folder / f"overlay-{len(made) + 1}.png"
                write_overlay(dcmread(arrival.path), picture)
                made.append(picture)
        return made

    def stop(self) -> None:
        """Stop the node in order, then the PACS."""
        if self._node is not None and self._node.poll() is None:
            self._node.terminate()
            try:
                self._node.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self._node.kill()
                self._node.wait()
        if self._node is not None and self._node.stdin is not None:
            self._node.stdin.close()
        if self._ledger is not None:
            self._ledger.close()
        self.pacs.stop()


def fresh_samples(folder: Path) -> list[Path]:
    """The shipped synthetic chests as studies of this moment, with UIDs of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.now().astimezone()
    made = []
    for sample in sorted(SAMPLES.glob("*.dcm")):
        ds = dcmread(sample)
        make_new(ds, now)
        made.append(folder / sample.name)
        ds.save_as(made[-1], enforce_file_format=True)
    if not made:
        raise DemoFailed(f"no samples in {SAMPLES}: give your own files, `opentriage demo PATH...`")
    return made


def _free_port() -> int:
    with socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _config(folder: Path, pacs_port: int, own_files: bool) -> str:
    study = f"complete_after_s = {COMPLETE_AFTER_S}\n"
    if own_files:
        study += f"triage_max_age_h = {A_LIFETIME_H}  # your own files are looked at whatever their date\n"
    return f"""\
[node]
state_dir = {json.dumps(str(folder / "state"))}
[receive]
host = "127.0.0.1"
port = {_free_port()}
free_disk_min_bytes = 104857600
[study]
{study}[web]
port = {_free_port()}
[[destinations]]
ae_title = "{AE_TITLE}"
host = "127.0.0.1"
port = {pacs_port}
"""
