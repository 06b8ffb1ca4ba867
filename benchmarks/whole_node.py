"""A node with a sink for a PACS, watched from outside: what came of each study and when, and who used the processor."""

import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from pynetdicom import AllStoragePresentationContexts

from benchmarks.radiographs import Radiograph, store
from benchmarks.watched import children_of, tree_cpu_s
from node.roles import ROLES
from tests.support.running import RunningNode
from tests.support.sink import STORE, Answer, Heard, Sink

SR = "1.2.840.10008.5.1.4.1.1.88."
STUDY_TAG = b"\x20\x00\x0d\x00UI"
FIRST_REPORT = 4  # objects of a flagged study's first report: two reports, the picture and the key objects
IDLE_WITHIN_S = 300.0


def roles_of(supervisor: int) -> dict[str, list[int]]:
    """Role -> its processes, from their command lines."""
    found: dict[str, list[int]] = {role: [] for role in ROLES}
    for pid in children_of(supervisor):
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        if "--role" in words:
            found[words[words.index("--role") + 1]].append(pid)
    return found


@dataclass
class Study:
    """Of one study, all times of time.monotonic(). arrived: (when, SOP Class UID) at the sink."""

    last_byte: float = 0.0
    arrived: list[tuple[float, str]] = field(default_factory=list)

    @property
    def raised(self) -> bool:
        return len(self.arrived) >= FIRST_REPORT

    def to_report(self) -> float:
        """Seconds from the last byte to the first Structured Report."""
        return min(at for at, sop_class in self.arrived if sop_class.startswith(SR)) - self.last_byte

    def to_last_object(self) -> float:
        """Seconds from the last byte to the last object of the first report."""
        return sorted(at for at, _ in self.arrived)[:FIRST_REPORT][-1] - self.last_byte


class WholeNode:
    """A running node; its PACS is a sink that answers at once."""

    def __init__(self, folder: Path, complete_after_s: float) -> None:
        storage = {str(context.abstract_syntax) for context in AllStoragePresentationContexts}
        self._lock = threading.Lock()
        self.studies: dict[str, Study] = defaultdict(Study)
        self.sink = Sink(self._hear, storage)
        self.node = RunningNode(folder, [("SINK", self.sink.port)], complete_after_s=complete_after_s)

    def __enter__(self) -> Self:
        self.sink.up()
        self.node.start()
        assert self.node.process is not None
        self._pids = roles_of(self.node.process.pid)
        return self

    def __exit__(self, *error: object) -> None:
        self.node.stop()
        self.sink.down()

    def _hear(self, heard: Heard) -> Answer:
        """Called under the sink's lock, by the association's thread."""
        at = time.monotonic()
        del self.sink.heard[:-1]  # nobody reads them again, and they are large
        where = heard.data.index(STUDY_TAG) + len(STUDY_TAG)
        length = int.from_bytes(heard.data[where : where + 2], "little")
        uid = heard.data[where + 2 : where + 2 + length].rstrip(b"\0").decode()
        with self._lock:
            self.studies[uid].arrived.append((at, heard.sop_class_uid))
        return STORE

    def send(self, image: Radiograph) -> None:
        """Store it and note when its last byte left."""
        with self._lock:
            self.studies[image.study_uid] = Study()
        at = store(self.node.port, image)
        with self._lock:
            self.studies[image.study_uid].last_byte = at

    def waiting(self) -> int:
        """Studies that were sent and of which nothing has come."""
        with self._lock:
            return sum(1 for study in self.studies.values() if not study.arrived)

    def cpu_s(self) -> dict[str, float]:
        """Processor seconds of each role so far, its children included."""
        return {role: sum(map(tree_cpu_s, pids)) for role, pids in self._pids.items()}

    def rest(self) -> None:
        """Wait until no job is queued or running."""
        self.node.wait_idle(IDLE_WITHIN_S)
