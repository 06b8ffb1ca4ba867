"""The deliver role is killed between the PACS's yes and its own ledger, again and again: one UID per result.

The long form: OPENTRIAGE_ROUNDS=1000.
"""

import os
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from config import load_settings
from ledger.records import TriagePriority
from node.wiring import open_ledger
from tests.support.delivering import Count, DeliverProcess, count, fill, jobs_left, site
from tests.support.sink import Answer, Heard, Sink
from tests.support.waiting import wait_until

ROUNDS = int(os.environ.get("OPENTRIAGE_ROUNDS", "30"))
HIGH = TriagePriority.HIGH


@dataclass
class Shooter:
    """Kills the role at the first object of each round, at a chosen moment around the answer."""

    process: DeliverProcess
    rng: random.Random
    armed: bool = False
    moments: Counter[str] = field(default_factory=Counter)

    def script(self, heard: Heard) -> Answer:
        """How this C-STORE ends."""
        if not self.armed:
            return Answer("stored")
        self.armed = False
        moment = self.rng.choice(("after the answer left", "soon after the answer", "before the answer"))
        self.moments[moment] += 1
        if moment == "before the answer":
            return Answer(moment, None, before=self.process.shoot)
        if moment == "soon after the answer":
            return Answer(moment, afterwards=self._soon)
        return Answer(moment, before=self.process.freeze, afterwards=self.process.shoot)

    def _soon(self) -> None:
        patience = self.rng.randrange(0, 300_000)
        for _ in range(patience):  # some ms at most: now and then the commit wins
            pass
        self.process.shoot()


def kill_again_and_again(folder: Path, rounds: int, fault: str) -> tuple[Count, Shooter]:
    sink = Sink()
    config = site(folder, sink.port)
    settings = load_settings(config)
    ledger = open_ledger(settings)
    studies = fill(ledger, settings, [HIGH] * (rounds // 10 + 2))
    with DeliverProcess(config, fault) as process, sink:
        shooter = Shooter(process, random.Random(20261121))
        sink.script = shooter.script
        for _ in range(rounds):
            if not jobs_left(ledger):
                break
            shooter.armed = True
            process.start()
            wait_until(lambda: not shooter.armed, 120)
            process.bury()
        shooter.armed = False
        process.start()
        wait_until(lambda: not jobs_left(ledger), 300)
        process.kill()
        found = count(ledger, studies, sink)
    ledger.close()
    return found, shooter


@pytest.mark.timeout(3600)
def test_kills_between_the_pacs_and_the_ledger_leave_one_uid_per_result(tmp_path: Path) -> None:
    found, shooter = kill_again_and_again(tmp_path, ROUNDS, "none")
    print(f"\n{sum(shooter.moments.values())} kills {dict(shooter.moments)}: {found}")
    assert found.is_exact, found
    assert sum(shooter.moments.values()) >= ROUNDS * 0.9
    assert found.arrivals > found.results  # some were sent again: the kills did fall where they hurt


def test_a_writer_with_fresh_uids_is_caught(tmp_path: Path) -> None:
    """The control: without stored bytes and deterministic UIDs this very count finds too much."""
    found, shooter = kill_again_and_again(tmp_path, 4, "fresh_uids")
    print(f"\n{sum(shooter.moments.values())} kills: {found}")
    assert found.strangers
    assert not found.is_exact
