"""A role that no supervisor started does for itself what one would have done for it."""

import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.settings import NodeSettings, Settings
from ledger.ledger import Ledger
from ledger.records import Stage
from node.running import on_its_own
from node.watching.counters import clear_counters, counter_files, counters_of_role
from node.wiring import open_ledger, owner, run_dir
from tests.support.ledgers import admit

HOUR_S = 3600.0


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(node=NodeSettings(state_dir=tmp_path / "state"))


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    ledger = open_ledger(settings)
    admit(ledger)
    yield ledger
    ledger.close()


def test_what_it_held_when_it_died_is_free_at_its_next_start(settings: Settings, ledger: Ledger) -> None:
    (held,) = ledger.claim(Stage.ANALYSE, owner("analyse"), 1, HOUR_S)
    on_its_own.begin("deliver", settings)
    assert ledger.claim(Stage.ANALYSE, "other", 1, HOUR_S) == []
    on_its_own.begin("analyse", settings)
    (again,) = ledger.claim(Stage.ANALYSE, "other", 1, HOUR_S)
    assert again.job_id == held.job_id


def test_what_another_process_of_the_same_role_holds_is_left_to_it(settings: Settings, ledger: Ledger) -> None:
    ledger.claim(Stage.ANALYSE, owner("analyse"), 1, HOUR_S)
    with (run_dir(settings) / "analyse.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        on_its_own.begin("analyse", settings)
        assert ledger.claim(Stage.ANALYSE, "third", 1, HOUR_S) == []


def test_it_does_not_start_over_a_store_that_is_not_the_ledgers(settings: Settings, ledger: Ledger) -> None:
    shutil.move(ledger.store.root / "instances", settings.node.state_dir / "elsewhere")
    with pytest.raises(on_its_own.StoreIsNotThere, match="is its volume mounted"):
        on_its_own.begin("report", settings)


def test_the_page_of_its_machine_finds_what_it_counts_until_it_starts_again(settings: Settings) -> None:
    folder = counters_of_role(settings, "receive")
    (folder / "counter_1.db").touch()
    assert counter_files(settings) == [str(folder / "counter_1.db")]
    counters_of_role(settings, "deliver")
    assert counter_files(settings) == [str(folder / "counter_1.db")]
    counters_of_role(settings, "receive")
    assert counter_files(settings) == []
    (folder / "counter_1.db").touch()
    clear_counters(settings)
    assert counter_files(settings) == []
