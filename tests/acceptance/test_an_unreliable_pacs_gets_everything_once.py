"""A PACS that is down, flaps, is busy, fails, falls silent or hangs up: everything arrives, once, most urgent first.

The long form: OPENTRIAGE_STUDIES=200 OPENTRIAGE_DOWN_S=7200.
"""

import os
import random
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from config import load_settings
from ledger.ledger import Ledger
from ledger.records import TriagePriority
from node.wiring import open_ledger
from tests.support.delivering import DeliverProcess, count, fill, jobs_left, site
from tests.support.sink import BUSY, CLOSED, CUT, FAILED, SILENT, STORE, Answer, Heard, Sink
from tests.support.waiting import wait_until

STUDIES = int(os.environ.get("OPENTRIAGE_STUDIES", "8"))
DOWN_S = float(os.environ.get("OPENTRIAGE_DOWN_S", "3"))
HIGH, MEDIUM, LOW = TriagePriority.HIGH, TriagePriority.MEDIUM, TriagePriority.LOW
FAULTS = (BUSY, FAILED, SILENT, CLOSED, CUT)
FAULTS_PER_OBJECT = 2


def some(rng: random.Random, number: int) -> list[TriagePriority]:
    """Mixed, each priority among them."""
    return rng.sample([HIGH, LOW, MEDIUM, LOW] * (number // 4 + 1), number)


class Moody:
    """Answers each object a few times as it likes, then takes it. Every kind of fault is used in turn."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._faults: Counter[str] = Counter()
        self._turn = 0

    def script(self, heard: Heard) -> Answer:
        """How this C-STORE ends."""
        if self._faults[heard.sop_class_uid] >= FAULTS_PER_OBJECT * len(FAULTS) or self._rng.random() < 0.4:
            return STORE
        self._faults[heard.sop_class_uid] += 1
        self._turn += 1
        return FAULTS[self._turn % len(FAULTS)]


class Flapping(threading.Thread):
    """Takes the sink down and up again until told to leave it up."""

    def __init__(self, sink: Sink, rng: random.Random) -> None:
        super().__init__(daemon=True)
        self._sink = sink
        self._rng = rng
        self.enough = threading.Event()
        self.times = 0

    def run(self) -> None:
        while not self.enough.is_set():
            self._sink.up()
            self.enough.wait(self._rng.uniform(0.02, 0.4))
            self._sink.down()
            self.times += 1
            self.enough.wait(self._rng.uniform(0.02, 0.3))
        self._sink.up()


def drained(ledger: Ledger) -> None:
    wait_until(lambda: not jobs_left(ledger), 300, 0.05)


@pytest.mark.timeout(14400)
def test_whatever_the_pacs_does_it_gets_each_result_once_and_the_urgent_ones_first(tmp_path: Path) -> None:
    rng = random.Random(20261121)
    sink = Sink()
    config = site(tmp_path, sink.port)
    settings = load_settings(config)
    ledger = open_ledger(settings)
    with DeliverProcess(config) as process:
        process.start()

        studies = fill(ledger, settings, some(rng, STUDIES))  # nobody listens
        wait_until(lambda: "destination_unreachable" in process.log.read_text(), 120)
        threading.Event().wait(DOWN_S)
        assert count(ledger, studies, sink).arrivals == 0
        back_at = time.monotonic()
        sink.up()
        drained(ledger)
        took_s = time.monotonic() - back_at
        first = [studies[str(heard.read().StudyInstanceUID)] for heard in sink.stored()]
        assert first == sorted(first, key=lambda priority: priority.rank), first
        assert [h.message_priority for h in sink.stored()] == [1 if priority is HIGH else 0 for priority in first]
        down = count(ledger, studies, sink)
        print(f"\ndown for {DOWN_S:g} s, then {down.arrivals} objects in {took_s:.1f} s, most urgent first: {down}")
        assert down.is_exact, down
        assert down.arrivals == down.results  # nothing was sent twice for being late

        flapping = Flapping(sink, random.Random(20261122))
        flapping.start()
        studies |= fill(ledger, settings, some(rng, STUDIES))
        wait_until(lambda: flapping.times >= 10, 120)
        flapping.enough.set()
        flapping.join()
        drained(ledger)
        flapped = count(ledger, studies, sink)
        print(f"down and up {flapping.times} times: {flapped}")
        assert flapped.is_exact, flapped

        process.kill()
        site(tmp_path, sink.port, response_timeout_s=1.0)  # from here on the PACS falls silent now and then
        process.start()
        sink.script = Moody(random.Random(20261123)).script  # its own: no thread takes a number from it
        studies |= fill(ledger, settings, some(rng, STUDIES))
        drained(ledger)
        moody = count(ledger, studies, sink)
        print(f"answers {sink.answers()}: {moody}")
        assert moody.is_exact, moody
        assert all(sink.answers().get(fault.name) for fault in FAULTS)
        assert ledger.parked() == []
        sink.down()
    ledger.close()


def test_a_writer_with_fresh_uids_is_caught_by_the_same_count(tmp_path: Path) -> None:
    """The control."""
    sink = Sink(lambda heard: CLOSED if heard.number == 1 else STORE)
    config = site(tmp_path, sink.port)
    settings = load_settings(config)
    ledger = open_ledger(settings)
    studies = fill(ledger, settings, [LOW])
    with DeliverProcess(config, "fresh_uids") as process, sink:
        process.start()
        drained(ledger)
        found = count(ledger, studies, sink)
    print(f"\n{found}")
    assert found.strangers == found.arrivals == 2
    assert not found.is_exact
    ledger.close()
