"""Models in a process of their own: it may die, hang or grow, and costs no more than the images it was looking at."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from config.settings import Settings
from inference import model_child, model_host, model_process, patience
from inference.analyser import Analyser, Source
from inference.errors import LostInModel, ModelsGone, PackageError, Undecided
from inference.frames import Gone, packed, receive, send
from inference.model_host import HostedSession, ModelHost
from inference.package import Package
from inference.session import load
from ledger.records import ResultStatus
from tests.support.chests import bright, save
from tests.support.deadly_models import DIES, HANGS, RAISES, SICKENS, SWALLOWS, picture
from tests.support.hosting import ENTRY, deadly, deadly_pictures, packages, settings_in
from tests.support.waiting import wait_until

HARMLESS = 0.3


@contextmanager
def hosted(settings: Settings, found: tuple[Package, ...], spare: bool = False) -> Iterator[HostedSession]:
    """The session of the only package."""
    host = ModelHost(spare)
    with deadly_pictures():
        try:
            host.open(found, settings)
            (session,) = host.sessions().values()
            yield session
        finally:
            host.close()


def batch(*kinds: float) -> Any:
    return np.stack([picture(kind) for kind in kinds])


def pid_of(session: HostedSession) -> int:
    assert session.host._process is not None
    return session.host._process.pid


def test_they_give_the_bits_that_they_give_here(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    found = packages(settings)
    (here,) = load(found, settings).sessions.values()
    images = np.random.default_rng(1).uniform(-1.0, 1.0, batch(0.0, 0.0, 0.0).shape).astype(np.float32)
    with hosted(settings, found) as there:
        assert (there.words, there.together) == (here.words, here.together)
        ours, theirs = here.run(images), there.run(images)
    assert list(ours.places) == list(theirs.places)
    for one, other in zip(ours.arrays(), theirs.arrays(), strict=True):
        assert np.array_equal(one, other)


def test_an_image_that_kills_them_is_lost_and_its_neighbours_are_not(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    files = [save(ds, tmp_path / "in") for ds in (bright(), deadly(), bright(), bright())]
    host = ModelHost()
    with deadly_pictures():
        analyser = Analyser(settings, packages(settings), children=1, opener=host.open)
        try:
            looked = analyser.analyse([Source(path) for path in files])
        finally:
            analyser.close()
            host.close()
    assert [one.loss is not None for one in looked] == [False, True, False, False]
    assert [one.results[0].status is ResultStatus.ANALYSED for one in looked] == [True, False, True, True]
    assert (looked[1].results[0].status, looked[1].results[0].reason_code) == (ResultStatus.FAILED, "process_lost")


def test_a_spare_takes_over_with_its_models_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_host, "SPARE_FIRST_S", 0.0)
    monkeypatch.setattr(model_host, "SPARE_AFTER_S", 600.0)
    settings = settings_in(tmp_path)
    with hosted(settings, packages(settings), spare=True) as session:
        wait_until(lambda: session.host._spare is not None, 60)
        spare = session.host._spare
        assert spare is not None
        with pytest.raises(LostInModel):
            session.run(batch(DIES))
        monkeypatch.setattr(model_host, "ModelProcess", None)  # nothing is loaded from here on
        assert len(session.run(batch(HARMLESS))) == 1
        assert pid_of(session) == spare.pid


def test_a_spare_that_dies_is_replaced_by_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    for name in ("SPARE_FIRST_S", "SPARE_AGAIN_S"):
        monkeypatch.setattr(model_host, name, 0.0)
    monkeypatch.setattr(model_host, "SPARE_LOOK_S", 0.05)
    settings = settings_in(tmp_path)
    with hosted(settings, packages(settings), spare=True) as session:
        host = session.host
        wait_until(lambda: host._spare is not None, 60)
        assert host._spare is not None
        dead = host._spare.pid
        host.on_spare = told.append
        with patch.object(model_process, "PROGRAM", "pass"):
            os.kill(dead, signal.SIGKILL)
            wait_until(lambda: bool(told), 60)
        assert told[0].startswith("The models could not be loaded again")
        with host._changed:
            host._spare_due = 0.0
            host._changed.notify_all()
        wait_until(lambda: host._spare is not None and host._spare.pid != dead and told[-1] == "", 60)


def test_deaths_without_end_are_no_images_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that crashes, and not one image after another: the role ends, which health tells, and starts anew."""
    monkeypatch.setattr(model_host, "DEATHS_MAX", 2)
    settings = settings_in(tmp_path)
    with hosted(settings, packages(settings)) as session:
        with pytest.raises(LostInModel):
            session.run(batch(DIES))
        with pytest.raises(ModelsGone, match="2 times"):
            session.run(batch(DIES))


def test_one_that_gives_no_answer_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_in(tmp_path)
    with hosted(settings, packages(settings)) as session:
        hanging = pid_of(session)
        monkeypatch.setattr(patience, "RUN_S", 0.5)
        with pytest.raises(LostInModel):
            session.run(batch(HANGS))
        monkeypatch.undo()
        with pytest.raises(ProcessLookupError):
            os.kill(hanging, 0)


def test_what_it_can_say_no_to_costs_it_nothing(tmp_path: Path) -> None:
    """A model that raises, and one that would take more memory than the process may, fail their images alone."""
    settings = settings_in(tmp_path)
    with hosted(settings, packages(settings)) as session:
        process = pid_of(session)
        for kind, name in ((RAISES, "ValueError"), (SWALLOWS, "MemoryError")):
            with pytest.raises(Undecided, match=name) as raised:
                session.run(batch(kind))
            assert "SENTINEL" not in str(raised.value)
            assert len(session.run(batch(HARMLESS))) == 1
        assert pid_of(session) == process


def test_one_that_lives_and_fails_every_image_is_replaced(tmp_path: Path) -> None:
    """A leak that has come to its limit, a card that was reset: it would fail all that comes, for good."""
    settings = settings_in(tmp_path)
    with hosted(settings, packages(settings)) as session:
        sick = pid_of(session)
        for kind in (SICKENS, HARMLESS):
            with pytest.raises(Undecided, match="RuntimeError"):
                session.run(batch(kind))
        assert len(session.run(batch(HARMLESS))) == 1
        assert pid_of(session) != sick


def test_apart_a_fresh_process_has_the_last_word_on_what_fails(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    with hosted(settings, packages(settings)) as session:
        apart = session.host.apart()
        try:
            (other,) = apart.sessions().values()
            with pytest.raises(RuntimeError, match="ValueError"):
                other.run(batch(RAISES))
            first = pid_of(other)
            with pytest.raises(RuntimeError, match="ValueError"):
                other.run(batch(RAISES))  # in another, which has seen nothing else
            assert pid_of(other) != first
            with pytest.raises(RuntimeError, match="RuntimeError"):
                other.run(batch(SICKENS))
            assert len(other.run(batch(HARMLESS))) == 1
        finally:
            apart.close()


def test_whoever_needs_a_spare_that_hangs_in_loading_does_not_wait_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A card that answers no more: the role starts anew, which health tells."""
    for name, value in (("SPARE_FIRST_S", 600.0), ("AGAIN_S", 1.0), ("AGAIN_TIMES", 0)):
        monkeypatch.setattr(model_host, name, value)
    settings = settings_in(tmp_path)
    host = ModelHost(spare=True)
    hanging = "import time; time.sleep(600)"
    found = packages(settings)
    try:
        host.open(found, settings)
        with patch.object(model_process, "PROGRAM", hanging), ThreadPoolExecutor(1) as thread:
            with host._changed:
                host._spare_due = 0.0
                host._changed.notify_all()
            wait_until(lambda: len(host._own) == 2, 30)
            assert host._process is not None
            host._process.close()
            with pytest.raises(ModelsGone):
                thread.submit(host.run, found[0].digest, batch(HARMLESS)).result(30)
    finally:
        host.close()


def test_another_is_the_same_though_it_words_a_refusal_otherwise(tmp_path: Path) -> None:
    """What a runtime says of a package may quote sizes and addresses."""
    settings = settings_in(tmp_path)
    odd = (
        "from inference import model_child as c, opened as o; import dataclasses, os; load = c.load; "
        "c.load = lambda *told: (lambda made: dataclasses.replace(made, refused=(o.Refused(None, "
        "f'at {os.getpid()}', None, told[0][0].digest),)))(load(*told)); "
    )
    with patch.object(model_process, "PROGRAM", model_process.PROGRAM.replace(ENTRY, odd + ENTRY)):
        host = ModelHost()
        try:
            assert len(host.open(packages(settings), settings).refused) == 1
            host._same().close()  # no ModelsGone
        finally:
            host.close()


def test_one_that_says_senseless_things_of_itself_is_taken_for_dead(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    odd = "from inference import model_child as c; c._told = lambda opened: 7; "
    with patch.object(model_process, "PROGRAM", model_process.PROGRAM.replace(ENTRY, odd + ENTRY)):
        host = ModelHost()
        with pytest.raises(ModelsGone, match="died"):
            host.open(packages(settings), settings)
        host.close()


def test_they_are_told_nothing_of_the_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENTRIAGE_NODE__DATABASE_URL", "postgresql://node:SENTINEL@db/ledger")
    monkeypatch.setenv("PGPASSWORD", "SENTINEL")
    settings = settings_in(tmp_path)
    with hosted(settings, packages(settings)) as session:
        assert b"SENTINEL" not in Path(f"/proc/{pid_of(session)}/environ").read_bytes()


def test_a_pipe_that_is_closed_under_its_reader_is_the_others_end() -> None:
    with pytest.raises(Gone):
        receive(1 << 20, time.monotonic() + 10)  # no such descriptor


def test_a_small_machine_is_not_to_be_filled_by_one_image() -> None:
    assert model_child.more_memory(64 << 30) == 4 << 30
    assert model_child.more_memory(4 << 30) == 2 << 30
    assert model_child.more_memory(-1) == 4 << 30


def test_what_is_being_loaded_when_they_are_closed_is_ended_and_nothing_is_loaded_after(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    with hosted(settings, packages(settings)) as session:
        apart = session.host.apart()
        with patch.object(model_process, "PROGRAM", "import time; time.sleep(600)"), ThreadPoolExecutor(1) as thread:
            loading = thread.submit(apart.run, session.digest, batch(HARMLESS))
            wait_until(lambda: bool(apart._own), 30)
            apart.close()
            with pytest.raises(ModelsGone):
                loading.result(30)
        with pytest.raises(ModelsGone):
            apart.run(session.digest, batch(HARMLESS))


def test_one_that_cannot_even_end_by_itself_is_killed_by_whoever_must_end_now(tmp_path: Path) -> None:
    """Native code that hangs with the interpreter's lock held: its watcher of the parent's end never runs."""
    settings = settings_in(tmp_path)
    with hosted(settings, packages(settings)) as session, ThreadPoolExecutor(1) as thread:
        apart = session.host.apart()
        apart.warm()
        for host in (session.host, apart):
            assert host._process is not None
            os.kill(host._process.pid, signal.SIGSTOP)
        asked = apart._process
        assert asked is not None
        waiting = thread.submit(apart.run, session.digest, batch(HARMLESS))
        wait_until(lambda: asked.runs == 1, 30)
        session.host.kill()
        with pytest.raises(LostInModel):
            waiting.result(30)
        assert session.host._process is not None
        assert session.host._process.ended(30) == -signal.SIGKILL


def test_nobody_goes_on_with_other_models_than_he_began_with(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    found = packages(settings)
    with hosted(settings, found) as session:
        manifest = found[0].folder / "manifest.json"
        manifest.write_bytes(manifest.read_bytes() + b"\n")
        with pytest.raises(LostInModel):
            session.run(batch(DIES))
        with pytest.raises(ModelsGone, match="replaced"):
            session.run(batch(HARMLESS))


def test_a_package_that_is_another_than_was_asked_for_is_not_loaded(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    (package,) = packages(settings)
    manifest = package.folder / "manifest.json"
    manifest.write_bytes(manifest.read_bytes() + b"\n")
    with pytest.raises(PackageError, match="replaced"):
        ModelHost().open((package,), settings)


def test_it_ends_with_whoever_started_it_and_not_by_a_signal_to_all(tmp_path: Path) -> None:
    """systemd sends SIGTERM to every process of a unit: what is being looked at is still looked at."""
    settings = settings_in(tmp_path)
    with hosted(settings, packages(settings)) as session:
        process = session.host._process
        assert process is not None
        os.kill(process.pid, signal.SIGTERM)
        assert len(session.run(batch(HARMLESS))) == 1
        assert process._process.stdin is not None
        tensors = batch(HANGS)
        asked = {"digest": session.digest, "shape": tensors.shape}
        send(process._process.stdin.fileno(), packed(asked, [tensors.data]), time.monotonic() + 10)  # at work for ever
        process._process.stdin.close()
        assert process.ended(30) == 0


def test_a_message_that_nobody_reads_is_given_up(tmp_path: Path) -> None:
    hear, say = os.pipe()
    os.set_blocking(say, False)
    try:
        with pytest.raises(Gone):
            send(say, packed({}, [bytes(1 << 22)]), 0.0)
    finally:
        os.close(hear)
        os.close(say)
