"""SIGKILL while old studies are removed: no row promises a file that is gone, and no file is left that no row knows."""

import random
import signal
import subprocess
import sys
from pathlib import Path

from sqlalchemy import text

from ledger.database import transaction
from ledger.ledger import Ledger
from ledger.records import Disposition
from ledger.store import Store
from tests.support.ledgers import admit, open_fresh
from tests.support.realdata import ROOT

STUDIES = 60


def fill(folder: Path) -> None:
    """Priors that came long ago."""
    ledger = open_fresh(folder)
    for number in range(STUDIES):
        admit(ledger, number, disposition=Disposition.PRIOR)
    with transaction(ledger._engine, write=True) as connection:
        connection.execute(text("UPDATE studies SET last_received_at = 1.0"))
    ledger.close()


def files(folder: Path) -> int:
    return sum(path.is_file() for path in (folder / "store" / "instances").rglob("*"))


def kill_while_removing(folder: Path, fault: str, steps: int, go_on: bool) -> None:
    """When it has gone so many steps; go_on: at some moment of the next step, else before it."""
    command = [sys.executable, "-m", "tests.support.sweeping_process", str(folder), fault]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        for step in range(steps + 1):
            assert process.stdout.readline() in (b"rows\n", b"file\n")
            if step < steps or go_on:
                process.stdin.write(b"go\n")
                process.stdin.flush()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        process.stdin.close()
        process.stdout.close()


def wrong(folder: Path) -> tuple[int, int]:
    """Rows that promise a file that is not there; files that neither a row nor the list of removals names."""
    store = Store(folder / "store")
    ledger = Ledger.open(f"sqlite:///{folder / 'ledger.sqlite'}", store)
    with transaction(ledger._engine, write=False) as connection:
        promised = set(connection.execute(text("SELECT path FROM instances WHERE removed_at IS NULL")).scalars())
        known = promised | set(connection.execute(text("SELECT path FROM removals")).scalars())
    ledger.close()
    there = {str(path.relative_to(store.root)) for path in (store.root / "instances").rglob("*") if path.is_file()}
    return len(promised - there), len(there - known)


def test_a_kill_leaves_neither_a_row_nor_a_file_alone(tmp_path: Path) -> None:
    fill(tmp_path)
    for go_on in (True, False, True):  # of more than eighty steps
        kill_while_removing(tmp_path, "none", random.randint(0, 25), go_on)
        assert files(tmp_path) > 0  # it was in the middle
        assert wrong(tmp_path) == (0, 0)
    ledger = Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite'}", Store(tmp_path / "store"))
    assert ledger.reconcile().orphans_moved == 0
    assert wrong(tmp_path) == (0, 0)
    ledger.close()


def test_files_before_rows_would_be_caught(tmp_path: Path) -> None:
    """The control: in the other order this very test finds rows that promise what is gone."""
    fill(tmp_path)
    kill_while_removing(tmp_path, "early", 2, go_on=False)
    assert wrong(tmp_path)[0] > 0
