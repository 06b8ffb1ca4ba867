"""A disk that is filled to the last byte ends nobody: what cannot be written waits until there is room."""

import errno
import os
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from config import Settings
from ledger.errors import LedgerUnavailable
from ledger.ledger import Ledger
from node import logging as node_logging
from node import notices
from node.chores.heartbeat import Heart
from node.roles import keep
from node.running import supervisor
from node.running.child import Child
from node.running.process import EXIT_VOLUME_FAILED
from node.running.supervisor import Supervisor
from node.trail import auditing
from node.watching import counters
from scp.network.occupancy import SharedOccupancy
from tests.support.waiting import wait_until

NO_ROOM = OSError(errno.ENOSPC, "No space left on device")


def no_room(*args: object, **more: object) -> Any:
    raise NO_ROOM


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A real one, of 2 MB, in memory."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "small", str(tmp_path)]
    if (
        os.geteuid() != 0
        or shutil.which("mount") is None
        or subprocess.run(mount, stderr=subprocess.DEVNULL).returncode
    ):
        pytest.skip("a small disk needs root, and the right to mount")
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def fill(disk: Path) -> Path:
    """To the last byte; what to delete for room."""
    ballast = disk / "ballast"
    with ballast.open("ab", buffering=0) as file:
        for size in (1 << 16, 1):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))
    return ballast


def settings_on(disk: Path) -> Settings:
    return Settings.model_validate(
        {"node": {"state_dir": disk / "state"}, "receive": {"port": 1, "free_disk_min_bytes": 0}}
    )


def test_what_a_role_says_of_itself_is_said_once_there_is_room(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    notices.publish(settings, "report", warm=False)
    with monkeypatch.context() as full:
        full.setattr(Path, "write_text", no_room)
        notices.publish(settings, "report", warm=True)
        notices.publish(settings, "node", ready=True)
        assert (notices.read(settings, "report")["warm"], notices.read(settings, "node")) == (False, {})
    assert wait_until(lambda: notices.read(settings, "node").get("ready"), 20)
    assert notices.read(settings, "report")["warm"] is True


def test_a_volume_that_became_read_only_ends_nobody_who_says_something_of_himself(disk: Path) -> None:
    settings = settings_on(disk)
    notices.publish(settings, "report", warm=False)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    notices.publish(settings, "report", warm=True)
    notices.publish(settings, "node", ready=True)
    assert (notices.read(settings, "report")["warm"], notices.read(settings, "node")) == (False, {})
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    assert wait_until(lambda: notices.read(settings, "node").get("ready"), 20)
    assert notices.read(settings, "report")["warm"] is True


def test_on_a_really_full_disk_every_writer_of_the_run_folder_goes_on(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_on(disk)
    monkeypatch.setenv(counters.COUNTERS, str(counters.counters_dir(settings)))
    monkeypatch.setattr("tempfile.tempdir", str(disk))
    monkeypatch.setenv("OPENTRIAGE_COUNTERS", "")
    ledger: Any = SimpleNamespace(sweep_heartbeats=lambda machine, older_than_s: 0)
    ballast = fill(disk)
    assert os.statvfs(disk).f_bavail == 0
    notices.publish(settings, "supervisor", began=1.0)
    assert notices.read(settings, "supervisor") == {}
    assert Heart(settings, ledger, threading.Event()).beat() is False
    counters.take_room()
    assert (counters.COUNTERS in os.environ, counters.counted_here()) == (False, True)
    with pytest.raises(OSError, match="No space left"):
        SharedOccupancy(disk / "state" / "run" / "associations", 100_000)
    ballast.unlink()
    assert wait_until(lambda: notices.read(settings, "supervisor").get("began"), 20) == 1.0


def test_a_heartbeat_that_cannot_be_written_is_missed_and_ends_nobody(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.chores.heartbeat.make_own_study", no_room)
    ledger: Any = SimpleNamespace(sweep_heartbeats=lambda machine, older_than_s: 0)
    with structlog.testing.capture_logs() as logs:
        assert Heart(settings, ledger, threading.Event()).beat() is False
    assert [(one["event"], one["where"]) for one in logs] == [
        ("heartbeat_missed", "it could not be made: OSError: No space left on device")
    ]


def test_a_chore_that_finds_no_room_begins_again_and_the_role_lives(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keep, "AGAIN_S", 0.01)
    stop, failed, turns = threading.Event(), threading.Event(), iter([NO_ROOM, NO_ROOM, None])

    def chore(settings: Settings, ledger: Ledger, stop: threading.Event) -> None:
        if error := next(turns):
            raise error

    ledger: Any = None
    keep._do(chore, settings, ledger, stop, failed)
    assert (failed.is_set(), stop.is_set(), list(turns)) == (False, False, [])

    def broken(settings: Settings, ledger: Ledger, stop: threading.Event) -> None:
        raise ValueError

    keep._do(broken, settings, ledger, stop, failed)
    assert failed.is_set()


def a_supervisor(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    for name in ("TICK_S", "AGAIN_S"):
        monkeypatch.setattr(supervisor, name, 0.01)
    one: Any = Supervisor(settings)
    one._ledger = SimpleNamespace()
    one._receivers = SimpleNamespace(stuck_so_far={}, count=0)
    one._pulse = SimpleNamespace(turn=lambda: None)
    one._announce = lambda: None
    return one  # type: ignore[no-any-return]


def test_no_turn_of_the_supervisor_is_its_last_for_want_of_room(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, turns = a_supervisor(settings, monkeypatch), iter([NO_ROOM, NO_ROOM, None, NO_ROOM])

    def turn(*of: object) -> bool:
        error = next(turns, None)
        if error is None:
            return not list(turns)
        raise error

    monkeypatch.setattr(one, "_turn", turn)
    with structlog.testing.capture_logs() as logs:
        one._keep([])
    assert [(entry["event"], str(entry["exc_info"])) for entry in logs] == [("loop_failed", str(NO_ROOM))]


def test_a_volume_that_failed_ends_the_turn_whatever_else_its_disk_refuses(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, read_only = a_supervisor(settings, monkeypatch), OSError(errno.EROFS, "Read-only file system")
    done: list[str] = []
    monkeypatch.setattr(one, "_free_leases", lambda role, pid: done.append("leases"))
    monkeypatch.setattr(auditing, "role_died", lambda ledger, name, status: done.append("audit"))

    def refuse(*of: object) -> None:
        raise read_only

    monkeypatch.setattr(supervisor, "forget_process", refuse)
    child, receivers = Child("deliver"), one._receivers
    vars(receivers).update(renew=lambda children: None, replace_stuck=lambda children: ())
    dead: Any = SimpleNamespace(returncode=EXIT_VOLUME_FAILED, pid=os.getpid(), poll=lambda: 1)
    child.process = dead
    clock: Any = SimpleNamespace(look=lambda: None)
    assert one._turn([child], clock)
    assert done == ["leases", "audit"]
    dead.returncode = 1
    child.process = dead
    with pytest.raises(OSError, match="Read-only"):
        one._turn([child], clock)
    assert done == ["leases", "audit"] * 2


@pytest.mark.parametrize("trouble", [NO_ROOM, LedgerUnavailable("full")])
def test_a_node_that_has_run_puts_things_in_order_as_soon_as_it_can_and_a_new_one_says_why_not(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    one, turns = a_supervisor(settings, monkeypatch), iter([trouble, trouble, None])

    def reconcile() -> None:
        if error := next(turns):
            raise error

    monkeypatch.setattr(one, "_reconcile", reconcile)
    one._put_in_order()
    assert list(turns) == []
    fresh = a_supervisor(settings, monkeypatch)
    fresh._ledger = None
    monkeypatch.setattr(fresh, "_reconcile", lambda: (_ for _ in ()).throw(trouble))
    with pytest.raises(type(trouble)):
        fresh._put_in_order()


def test_a_log_on_a_full_disk_loses_lines_and_nobody_his_work(monkeypatch: pytest.MonkeyPatch) -> None:
    full = Path("/dev/full").open("w")  # noqa: SIM115  to close it fails too
    try:
        monkeypatch.setattr(sys, "stderr", full)
        with pytest.raises(OSError, match="No space left"):
            print("x", file=sys.stderr, flush=True)
        structlog.WriteLogger(node_logging.STDERR).msg("y" * 100_000)
    finally:
        monkeypatch.undo()
        with suppress(OSError):
            full.close()


def test_room_for_counters_is_on_the_disk_before_anything_is_counted_and_given_back_by_the_dead(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = counters.counters_dir(settings)
    monkeypatch.setenv(counters.COUNTERS, str(folder))
    counters.take_room()
    files = {path.name: path for path in folder.iterdir()}
    assert set(files) == {f"{kind}_{os.getpid()}.db" for kind in counters.KINDS}
    assert all(path.stat().st_blocks * 512 >= counters.ROOM_BYTES for path in files.values())
    used = files[f"counter_{os.getpid()}.db"]
    with used.open("r+b") as file:
        file.write(struct.pack("i", 24))
    counters.forget_process(settings, os.getpid())
    assert [(path, path.stat().st_size) for path in folder.iterdir()] == [(used, 24)]


def test_a_start_on_a_full_disk_says_so_and_not_that_rights_are_missing(settings: Settings) -> None:
    from node.commands.serve import _why

    why: Callable[[OSError], str] = lambda error: _why(error, settings)  # noqa: E731
    assert "is full (No space left on device): make room there; see docs/runbooks/disk-full.md" in why(NO_ROOM)
    assert "writable" in why(PermissionError(errno.EACCES, "Permission denied"))
