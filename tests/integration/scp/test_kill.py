"""SIGKILL at any moment loses nothing that was acknowledged. The journal of acknowledgements lives with the senders."""

import hashlib
import random
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from ledger.ledger import Ledger
from ledger.store import Store
from tests.support.encoded import CT, data_set, element
from tests.support.rawscu import EXPLICIT_LITTLE, Aborted, RawScu, Rejected
from tests.support.realdata import ROOT
from tests.support.waiting import wait_until

SENDERS = 3
Journal = list[tuple[str, str]]  # (SOP Instance UID, SHA-256) of everything answered 0x0000


class Victim:
    def __init__(self, folder: Path, fault: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.receiver_process", str(folder), fault],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            text=True,
        )
        assert self.process.stdout is not None
        line = next((line for line in self.process.stdout if line.strip().isdigit()), "")
        self.address = ("127.0.0.1", int(line))

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


def send_until_it_dies(address: tuple[str, int], sender: str, journal: Journal) -> None:
    with suppress(OSError, Aborted, Rejected), RawScu(address, [(CT, (EXPLICIT_LITTLE,))]) as scu:
        for n in range(1_000_000):
            uid = f"1.2.{sender}.{n + 1}"
            data = data_set(SOPInstanceUID=uid, tail=element(0x7FE00010, "OW", random.randbytes(20_000)))
            if scu.store(CT, uid, data).status == 0:
                journal.append((uid, hashlib.sha256(data).hexdigest()))


def kill_while_sending(folder: Path, fault: str, round_number: int, at_least: int) -> Journal:
    victim = Victim(folder, fault)
    journal: Journal = []
    senders = [
        threading.Thread(target=send_until_it_dies, args=(victim.address, f"{round_number}.{n}", journal))
        for n in range(1, SENDERS + 1)
    ]
    try:
        for sender in senders:
            sender.start()
        wait_until(lambda: len(journal) >= at_least, within_s=60, every_s=0.001)
    finally:
        victim.kill()
    for sender in senders:
        sender.join(20)
    return journal


def lost(folder: Path, journal: Journal) -> list[str]:
    """Acknowledged instances without a row in the ledger, or whose file is not what was sent."""
    store = Store(folder / "store")
    ledger = Ledger.open(f"sqlite:///{folder / 'ledger.sqlite'}", store)
    try:
        return [uid for uid, sha256 in journal if not _is_there(ledger, store, uid, sha256)]
    finally:
        ledger.close()


def _is_there(ledger: Ledger, store: Store, uid: str, sha256: str) -> bool:
    ref = ledger.find_instance(uid, sha256)
    if ref is None or not store.path(ref.path).exists():
        return False
    content = store.read(ref.path)
    meta_bytes = int.from_bytes(content[140:144], "little")
    return hashlib.sha256(content[144 + meta_bytes :]).hexdigest() == sha256


def test_killed_at_any_moment_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    journal: Journal = []
    for round_number in range(1, 4):
        journal += kill_while_sending(tmp_path, "none", round_number, at_least=random.randint(30, 90))
    assert len(journal) >= 90
    assert lost(tmp_path, journal) == []
    ledger = Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite'}", Store(tmp_path / "store"))
    ledger.reconcile()
    ledger.close()
    assert lost(tmp_path, journal) == []  # and reconciliation takes nothing away
    assert not list((tmp_path / "store" / "parts").iterdir())


@pytest.mark.parametrize("fault", ["early", "unfinished"])
def test_a_receiver_that_answers_too_early_is_caught(tmp_path: Path, fault: str) -> None:
    """The control: without the contract this very test finds losses."""
    journal = kill_while_sending(tmp_path, fault, 1, at_least=20)
    assert lost(tmp_path, journal)
