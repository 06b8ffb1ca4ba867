"""Untrusted bytes stay in the child: bombs, crashes and lies cost one instance and nothing else."""

import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian
from structlog.testing import capture_logs

from config.settings import LookSettings
from inference.errors import CannotLook
from inference.sandbox import PROGRAM, DecodeChild, Wanted
from ledger.reconcile import dataset_sha256
from tests.support.dicom_files import J2K, JPEG_BASELINE, bomb, compressed, j2k_header, jpeg_header
from tests.support.dx import make_dx, write
from tests.support.waiting import wait_until

WANTED = (Wanted("header", 56, 56, "squash"),)
# A child whose decoder does this instead: how fast a machine is decides nothing then.
BURNS = PROGRAM.replace("main()", "main({'decode': lambda _: any(iter(int, 1))})")  # without end
CRASHES = PROGRAM.replace("main()", "import ctypes; main({'decode': lambda _: ctypes.string_at(0)})")


@pytest.fixture
def child() -> Iterator[DecodeChild]:
    child = DecodeChild(LookSettings())
    yield child
    child.close()


def limited(**limits: Any) -> DecodeChild:
    return DecodeChild(LookSettings(**limits))


def look(child: DecodeChild, path: Path, side: int = 0) -> Any:
    child.look(path, None, None)
    return child.decode(WANTED, side)


def good(tmp_path: Path) -> Path:
    return write(make_dx(), tmp_path / "good.dcm")


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_a_picture_comes_back_with_its_display(child: DecodeChild, tmp_path: Path) -> None:
    decoded = look(child, good(tmp_path), side=100)
    assert decoded.pictures[0].shape == (56, 56)
    assert decoded.display is not None
    assert decoded.display.shape == (100, 100)
    assert (decoded.rows, decoded.columns) == (256, 256)
    assert decoded.display[50, 50] > decoded.display[2, 2]  # larger = brighter


def test_a_child_that_dies_before_it_is_asked_costs_that_image_and_no_more(
    child: DecodeChild, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child.start()
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    with monkeypatch.context() as between:
        between.setattr(child, "start", lambda: None)  # it was alive when that was asked
        with pytest.raises(CannotLook):
            look(child, good(tmp_path))
    assert look(child, good(tmp_path)).rows == 256


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_the_hash_of_what_was_decoded_is_that_of_admission(child: DecodeChild, tmp_path: Path, syntax: UID) -> None:
    ds = make_dx()
    ds.file_meta.TransferSyntaxUID = syntax
    path = write(ds, tmp_path / "one.dcm")
    assert look(child, path).source_sha256 == dataset_sha256(path)


def test_an_rle_bomb_is_refused_without_memory(child: DecodeChild, tmp_path: Path) -> None:
    before = peak_bytes()
    path = bomb(tmp_path / "bomb.dcm")
    with pytest.raises(CannotLook) as refusal:
        look(child, path)
    assert refusal.value.reason_code in ("decode_limit", "pixel_length")
    assert peak_bytes() - before < 100_000_000


@pytest.mark.parametrize(
    ("frame", "syntax"), [(j2k_header(16000, 16000), J2K), (jpeg_header(16000, 16000), JPEG_BASELINE)]
)
def test_a_frame_that_claims_what_it_has_not_is_refused(
    child: DecodeChild, tmp_path: Path, frame: bytes, syntax: Any
) -> None:
    """The header agrees with the lie, so only the decoder can find it, inside its limits."""
    ds = compressed(frame, syntax, Rows=16000, Columns=16000, BitsAllocated=8, BitsStored=8, HighBit=7)
    with pytest.raises(CannotLook) as refusal:
        look(child, write(ds, tmp_path / "lie.dcm"))
    assert refusal.value.reason_code in ("decode_failed", "decode_limit")
    assert look(child, good(tmp_path)).rows == 256


def test_more_memory_than_allowed_costs_one_instance(tmp_path: Path) -> None:
    child = limited(decode_memory_bytes=700_000_000, decoded_max_bytes=2**31)
    try:
        with Image.new("L", (14000, 14000), 7) as picture:
            picture.save(tmp_path / "huge.png", compress_level=1)
        child.look(tmp_path / "huge.png", "chest-xray", 3.0)
        with pytest.raises(CannotLook, match="decode_limit"):
            child.decode(WANTED, 0)
        assert look(child, good(tmp_path)).rows == 256
        assert child.starts == 2
    finally:
        child.close()


def test_a_deflated_bomb_costs_one_instance(tmp_path: Path) -> None:
    child = limited(decode_memory_bytes=650_000_000)
    try:
        ds = make_dx(np.zeros((9000, 9000), np.uint16))
        ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        path = write(ds, tmp_path / "deflated.dcm")
        assert path.stat().st_size < 2_000_000
        with pytest.raises(CannotLook) as refusal:
            look(child, path)
        assert refusal.value.reason_code in ("decode_limit", "unreadable", "decode_failed")
        assert look(child, good(tmp_path)).rows == 256
    finally:
        child.close()


def test_a_child_that_burns_its_seconds_is_ended_by_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = limited(decode_cpu_s=0.001, decode_wall_s=120.0)
    try:
        monkeypatch.setattr(DecodeChild, "program", BURNS)
        with capture_logs() as logs, pytest.raises(CannotLook, match="decode_limit"):
            look(child, good(tmp_path))
        [gone] = [one for one in logs if one["event"] == "decode_child_gone"]
        assert gone["exit_code"] == -signal.SIGXCPU  # and not the clock
        monkeypatch.undo()
        child._settings = LookSettings()
        assert look(child, good(tmp_path)).rows == 256
    finally:
        child.close()


def test_a_child_that_hangs_is_killed_by_the_clock(tmp_path: Path) -> None:
    child = limited(decode_wall_s=0.3)
    try:
        child.start()
        assert child.pid is not None
        os.kill(child.pid, signal.SIGSTOP)
        with pytest.raises(CannotLook, match="decode_limit"):
            look(child, good(tmp_path))
        child._settings = LookSettings()
        assert look(child, good(tmp_path)).rows == 256
    finally:
        child.close()


def test_a_child_that_crashes_in_the_middle_costs_one_instance(
    child: DecodeChild, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DecodeChild, "program", CRASHES)
    child.look(good(tmp_path), None, None)
    pid = child.pid
    with capture_logs() as logs, pytest.raises(CannotLook, match="decode_failed"):
        child.decode(WANTED, 1024)
    assert [one["exit_code"] for one in logs if one["event"] == "decode_child_gone"] == [-signal.SIGSEGV]
    monkeypatch.undo()
    assert look(child, good(tmp_path)).rows == 256
    assert child.pid != pid


def test_a_child_that_answers_nonsense_is_replaced(
    child: DecodeChild, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child.start()
    monkeypatch.setattr(child, "_exchange", lambda *_: ({"facts": {"rows": "many"}, "blobs": []}, []))
    with pytest.raises(CannotLook, match="decode_failed"):
        child.look(good(tmp_path), None, None)
    monkeypatch.undo()
    assert look(child, good(tmp_path)).rows == 256


def test_the_child_holds_no_secret_and_can_write_no_file(child: DecodeChild, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENTRIAGE_SECRET", "sentinel")
    child.start()
    environment = Path(f"/proc/{child.pid}/environ").read_bytes()
    limits = Path(f"/proc/{child.pid}/limits").read_text().splitlines()
    assert b"sentinel" not in environment
    for name in ("Max file size", "Max core file size"):
        assert next(line for line in limits if line.startswith(name)).split()[-3:-1] == ["0", "0"]


def test_a_child_ends_with_its_parent(child: DecodeChild) -> None:
    child.start()
    process = child._process
    assert process is not None
    assert process.stdin is not None
    process.stdin.close()
    wait_until(lambda: process.poll() is not None, within_s=60)


@pytest.mark.parametrize("make", ["fifo", "folder", "missing", "device"])
def test_what_is_no_file_is_refused_at_once(child: DecodeChild, tmp_path: Path, make: str) -> None:
    path = {"device": Path("/dev/zero"), "folder": tmp_path}.get(make, tmp_path / "x")
    if make == "fifo":
        os.mkfifo(path)
    with pytest.raises(CannotLook, match="unreadable"):
        child.look(path, None, None)


def test_deep_nesting_is_refused_or_read_but_never_kills_the_child(child: DecodeChild, tmp_path: Path) -> None:
    head = write(make_dx(), tmp_path / "x.dcm").read_bytes()
    at = head.index(b"\x28\x00\x02\x00US")
    nested = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 3000
    (tmp_path / "deep.dcm").write_bytes(head[:at] + nested + head[at:])
    with pytest.raises(CannotLook):
        look(child, tmp_path / "deep.dcm")
    assert look(child, good(tmp_path)).rows == 256
    assert child.starts == 1


@pytest.mark.parametrize("keep", [140, 400, 800, 1500, 20_000])
def test_files_cut_anywhere_are_refused(child: DecodeChild, tmp_path: Path, keep: int) -> None:
    whole = good(tmp_path).read_bytes()
    (tmp_path / "cut.dcm").write_bytes(whole[:keep])
    with pytest.raises(CannotLook):
        look(child, tmp_path / "cut.dcm")


@pytest.mark.parametrize(
    ("mode", "name", "reason_code"),
    [("L", "a.png", ""), ("L", "a.jpg", ""), ("RGB", "a.png", ""), ("I;16", "a.png", ""), ("L", "a.bmp", "unreadable")],
)
def test_pictures_are_read_when_somebody_says_what_they_are(
    child: DecodeChild, tmp_path: Path, mode: str, name: str, reason_code: str
) -> None:
    grey = np.tile(np.linspace(0, 255, 200), (200, 1)).astype(np.uint8)
    picture = Image.fromarray(grey.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(grey).convert(mode)
    picture.save(tmp_path / name)
    if reason_code:
        with pytest.raises(CannotLook, match=reason_code):
            child.look(tmp_path / name, "chest-xray", 3.0)
        return
    facts = child.look(tmp_path / name, "chest-xray", 3.0)
    assert (facts.modality, facts.body_part, facts.view, facts.age_years) == ("DX", "CHEST", "FRONTAL", 3.0)
    tensor = child.decode(WANTED, 0).pictures[0]
    assert isinstance(tensor, np.ndarray)
    assert abs(float(tensor.mean()) - 0.5) < 0.02


def test_a_coloured_picture_is_refused(child: DecodeChild, tmp_path: Path) -> None:
    Image.new("RGB", (200, 200), (200, 30, 30)).save(tmp_path / "red.png")
    child.look(tmp_path / "red.png", "chest-xray", 3.0)
    with pytest.raises(CannotLook, match="colour"):
        child.decode(WANTED, 0)


def test_a_picture_that_nobody_described_is_not_looked_at(child: DecodeChild, tmp_path: Path) -> None:
    Image.new("L", (200, 200), 9).save(tmp_path / "x.png")
    with pytest.raises(CannotLook, match="unreadable"):
        child.look(tmp_path / "x.png", None, None)
