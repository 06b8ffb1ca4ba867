"""12-bit JPEG Extended goes through DCMTK's dcmdjpeg, under the decode child's limits; without it nobody guesses."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from config.settings import LookSettings
from inference import dcmtk
from inference.analyser import Source
from inference.dcmtk import KNOWN_FRAME, find_dcmtk
from inference.errors import CannotLook
from inference.jpeg_extended import Limits, decode_frame
from inference.pixels import read_format, stored_frame
from inference.sandbox import DecodeChild, Wanted
from ledger.records import ResultStatus, TriagePriority
from tests.integration.inference.conftest import MakeAnalyser
from tests.support.dx import make_dx, write
from tests.support.jpeg12 import chest, frame_of, make
from tests.support.peers import need
from tests.support.waiting import wait_until

WANTED = (Wanted("header", 56, 56, "squash"),)
LOSS = 12  # of 4095, at quality 95


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint16]:
    return chest()


@pytest.fixture(scope="module")
def frame(pixels: NDArray[np.uint16], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return frame_of(pixels, tmp_path_factory.mktemp("jpeg"))


@pytest.fixture
def program() -> Path:
    return need("dcmdjpeg")


def limits(program: Path, cpu_s: float = 5.0, wall_s: float = 20.0) -> Limits:
    return Limits(program, cpu_s, wall_s)


def decode(ds: Dataset, program: Path | None) -> NDArray[np.uint16]:
    form = read_format(ds, str(ds.file_meta.TransferSyntaxUID), 1 << 28)
    return np.asarray(stored_frame(ds, form, program and limits(program)))


def fake(tmp_path: Path, script: str) -> Path:
    path = tmp_path / "dcmdjpeg"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_the_values_are_the_sources_within_the_loss(frame: bytes, pixels: NDArray[np.uint16], program: Path) -> None:
    got = decode(make(frame, pixels), program).astype(int)
    assert got.shape == pixels.shape
    assert np.abs(got - pixels).max() <= LOSS
    assert np.abs(got - pixels).mean() < 3.0
    assert got.max() > 255  # these are no 8 bits


def test_such_an_image_is_analysed_as_the_uncompressed_one(
    make_analyser: MakeAnalyser, tmp_path: Path, frame: bytes, pixels: NDArray[np.uint16], program: Path
) -> None:
    analyser = make_analyser()
    files = [write(make(frame, pixels), tmp_path / "12.dcm"), write(make_dx(pixels), tmp_path / "plain.dcm")]
    ours, plain = (looked.results[0] for looked in analyser.analyse([Source(path) for path in files]))
    assert ours.status is plain.status is ResultStatus.ANALYSED
    assert ours.findings[0].probability == pytest.approx(plain.findings[0].probability, abs=0.01)


def test_without_the_program_it_is_not_assessed_and_says_so(
    make_analyser: MakeAnalyser, tmp_path: Path, pixels: NDArray[np.uint16]
) -> None:
    analyser = make_analyser(look={"dcmdjpeg": "off"})
    header = (
        b"\xff\xd8\xff\xc1\x00\x0b\x0c\x01\x00\x01\x00\x01\x01\x11\x00\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00\xff\xd9"
    )
    path = write(make(header, pixels), tmp_path / "12.dcm")
    (result,) = analyser.analyse([Source(path)])[0].results
    assert (result.status, result.reason_code) == (ResultStatus.NOT_ASSESSED, "decoder_missing")
    assert result.reason == "12-bit JPEG Extended needs DCMTK's dcmdjpeg, which this node has not."
    assert result.priority is TriagePriority.NOT_ASSESSED
    assert result.findings == ()


def test_of_several_frames_the_middle_one_is_decoded(tmp_path: Path, program: Path) -> None:
    images = [chest(seed)[::step] for seed, step in ((1, 1), (2, -1), (3, 1))]
    frames = [frame_of(np.ascontiguousarray(image), tmp_path) for image in images]
    ds = make(frames[0], images[0], NumberOfFrames=3)
    ds.PixelData = encapsulate(frames)
    assert np.abs(decode(ds, program).astype(int) - images[1]).max() <= LOSS


def test_what_the_codec_shot_over_white_is_white(tmp_path: Path, program: Path) -> None:
    """Ten bits in a codec of twelve: 1030 is no black, as it would be if the bits above the tenth were cut off."""
    pixels = np.full((64, 64), 1030, np.uint16)
    pixels[:8], pixels[8:16] = 0, 512
    got = decode(make(frame_of(pixels, tmp_path), pixels, BitsStored=10, HighBit=9), program)
    assert got.max() == 1023
    assert (got[32:] == 1023).all()


@pytest.mark.parametrize(
    ("change", "reason_code"),
    [
        ({"PixelRepresentation": 1}, "header_malformed"),
        ({"BitsAllocated": 32}, "header_malformed"),
        ({"BitsStored": 16, "HighBit": 15}, "header_malformed"),
        ({"HighBit": 15}, "header_malformed"),
        ({"BitsStored": 10, "HighBit": 9}, "pixel_length"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "photometric_unsupported"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_FULL_422"}, "photometric_unsupported"),
        ({"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}, "pixel_length"),
        ({"Rows": 255}, "pixel_length"),
        ({"NumberOfFrames": 2}, "decode_failed"),
    ],
)
def test_what_it_cannot_be_is_refused(
    frame: bytes, pixels: NDArray[np.uint16], program: Path, change: dict[str, object], reason_code: str
) -> None:
    ds = make(frame, pixels)
    for keyword, value in change.items():
        setattr(ds, keyword, value)
    with pytest.raises(CannotLook) as refusal:
        decode(ds, program)
    assert refusal.value.reason_code == reason_code


@pytest.mark.parametrize(
    "damage",
    [
        lambda frame: frame[: len(frame) // 2] + b"\xff\xd9",  # dcmdjpeg paints the rest grey, and warns
        lambda frame: frame[: len(frame) // 2],
        lambda frame: frame.replace(b"\xff\xda", b"\xff\xc9", 1),
        lambda frame: frame.replace(b"\xff\xc1", b"\xff\xc2", 1),
        lambda frame: frame[: frame.index(b"\xff\xda") + 10] + b"\xff\xd9",
    ],
    ids=["cut and closed", "cut", "no scan", "called progressive", "no data"],
)
def test_a_damaged_frame_is_refused(
    frame: bytes, pixels: NDArray[np.uint16], program: Path, damage: Callable[[bytes], bytes]
) -> None:
    broken = damage(frame)
    with pytest.raises(CannotLook, match="decode_failed"):
        decode(make(broken + b"\0" * (len(broken) % 2), pixels), program)


@pytest.mark.parametrize(
    ("script", "wall_s", "reason_code"),
    [
        ("exec /usr/bin/yes", 60.0, "decode_failed"),  # more than the header says
        ("while :; do echo x >&2; done", 60.0, "decode_failed"),
        ("/bin/cat > /dev/null; exit 0", 60.0, "decode_failed"),
        ("exec /bin/cat", 60.0, "decode_failed"),  # what it was given, not decoded
        ("exit 3", 60.0, "decode_failed"),
        ("while :; do :; done", 500.0, "decode_limit"),  # processor time
        ("exec /bin/sleep 600", 0.5, "decode_limit"),  # the clock
    ],
)
def test_a_program_that_misbehaves_costs_one_frame(
    tmp_path: Path, script: str, wall_s: float, reason_code: str
) -> None:
    began = time.monotonic()
    with pytest.raises(CannotLook, match=reason_code):
        decode_frame(KNOWN_FRAME, 8, 16, 12, limits(fake(tmp_path, script), cpu_s=0.1, wall_s=wall_s))
    assert time.monotonic() - began < 120  # and not the ten minutes that it would sleep, nor all the time there is


def test_a_program_that_is_gone_is_a_decoder_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(CannotLook, match="decoder_missing"):
        decode_frame(KNOWN_FRAME, 8, 16, 12, limits(tmp_path / "none"))


@pytest.fixture
def child(tmp_path: Path) -> Iterator[DecodeChild]:
    child = DecodeChild(LookSettings(decode_wall_s=600.0, decode_cpu_s=300.0), fake(tmp_path, "while :; do :; done"))
    yield child
    child.close()


def group_of(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[2]) == pid and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def decode_limited(child: DecodeChild) -> None:
    with pytest.raises(CannotLook, match="decode_limit"):
        child.decode(WANTED, 0)


def test_what_the_child_started_is_killed_with_it(
    child: DecodeChild, tmp_path: Path, frame: bytes, pixels: NDArray[np.uint16]
) -> None:
    child.start()
    pid = child.pid
    assert pid is not None
    child.look(write(make(frame, pixels), tmp_path / "12.dcm"), None, None)
    looking = threading.Thread(target=decode_limited, args=(child,))
    looking.start()
    wait_until(lambda: len(group_of(pid)) == 2, within_s=60)
    os.kill(pid, signal.SIGXCPU)  # as the kernel does, when its seconds are used up
    looking.join()
    wait_until(lambda: group_of(pid) == [], within_s=30)


def test_auto_finds_the_program_and_says_its_version(program: Path) -> None:
    found = find_dcmtk(LookSettings())
    assert found.path == program
    assert found.version[:2] in ("3.", "4.")
    assert found.version in found.sentence


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("exit 0", "is not DCMTK's dcmdjpeg"),
        ("exit 1", "cannot be run"),
        ("echo '$dcmtk: dcmdjpeg v3.6.7 2022-04-22 $'", "does not decode a known image"),
    ],
)
def test_another_program_is_not_taken_for_it(tmp_path: Path, script: str, why: str) -> None:
    found = find_dcmtk(LookSettings(dcmdjpeg=str(fake(tmp_path, script))))
    assert (found.path, found.version) == (None, "")
    assert why in found.sentence


def test_a_program_that_others_may_change_is_not_used(tmp_path: Path, program: Path) -> None:
    copy = tmp_path / "dcmdjpeg"
    copy.write_bytes(program.read_bytes())
    copy.chmod(0o777)
    found = find_dcmtk(LookSettings(dcmdjpeg=str(copy)))
    assert found.path is None
    assert "may be changed by others" in found.sentence
    copy.chmod(0o755)
    assert find_dcmtk(LookSettings(dcmdjpeg=str(copy))).path == copy


def test_it_is_never_looked_for_along_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path, "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(dcmtk, "FOLDERS", (tmp_path / "nowhere",))
    assert find_dcmtk(LookSettings()).path is None
    assert os.environ["PATH"] == str(tmp_path)
