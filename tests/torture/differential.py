"""17: two decoders and the source agree to the bit, or ours refuses.

For each coding of each picture: what comes out of ours against what went in, and against DCMTK where it knows the
coding. JPEG 2000 has no second decoder here that is not OpenJPEG's: it is held against its source alone. The vectors of
pylibjpeg-libjpeg's issue 90 are JPEG Lossless whose differences wrap.
"""

import io
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID, JPEGLossless, JPEGLosslessSV1

from config.settings import LookSettings
from inference import pixels
from inference.dcmtk import find_dcmtk
from inference.errors import CannotLook
from inference.jpeg_extended import Limits
from tests.support.dicom_files import compressed
from tests.support.lossless_jpeg import encode
from tests.torture.codings import DCMTK, Coding, Pixels, chest, made
from tests.torture.experiment import Arm, Context, Control, register

Values = NDArray[np.int64]
TOOLS = {"1.2.840.10008.1.2.5": "dcmdrle", "1.2.840.10008.1.2.4.80": "dcmdjpls", "1.2.840.10008.1.2.4.81": "dcmdjpls"}
NOT_OF_DCMTK = ("1.2.840.10008.1.2.4.9", "1.2.840.10008.1.2.4.20")
LOSSY_APART = 2  # two inverse cosine transforms may round differently
SIDE = 96


def agreeing(context: Context) -> Arm:
    arm = Arm()
    arm.counts.update({"rounds": 0, "exact": 0, "within the loss": 0, "refused": 0, "wrong": 0, "against DCMTK": 0})
    rng = np.random.default_rng(context.rng.randrange(1 << 32))
    limits = _limits()
    for _ in range(context.rounds(1, 40)):
        for picture in _pictures(rng):
            for coding in [*made(picture, context.folder), *_vectors(rng)]:
                _compare(context, arm, coding, limits)
    arm.require(arm.counts["exact"] > arm.counts["refused"], "hardly anything was decoded")
    arm.figures["DCMTK"] = find_dcmtk(LookSettings()).version or "not here"
    return arm


def _limits() -> Limits | None:
    program = find_dcmtk(LookSettings()).path
    return program and Limits(program, 20.0, 20.0)


def _pictures(rng: np.random.Generator) -> Iterator[Pixels]:
    yield chest(rng, SIDE)
    yield rng.integers(0, 4096, (SIDE, SIDE)).astype(np.uint16)
    noise = chest(rng, SIDE)
    noise[rng.random(noise.shape) < 0.02] = 4095
    noise[rng.random(noise.shape) < 0.02] = 0
    yield noise


def _vectors(rng: np.random.Generator) -> Iterator[Coding]:
    """JPEG Lossless of every precision, with differences the standard way and the long way round."""
    for bits in (8, 10, 12, 14, 15, 16):
        top = (1 << bits) - 1
        values = rng.choice([0, 1, top // 2, top // 2 + 1, top - 1, top], (24, 31)).astype(np.uint16)
        for predictor in (1, 2, 4, 7):
            yield _vector(values, bits, predictor, False)
        yield _vector(values, bits, 1, True)


def _vector(values: Pixels, bits: int, predictor: int, wrap: bool) -> Coding:
    ds = compressed(
        encode(values, bits, predictor, wrap), JPEGLosslessSV1 if predictor == 1 else JPEGLossless, Rows=24, Columns=31,
        BitsAllocated=8 if bits == 8 else 16, BitsStored=bits, HighBit=bits - 1,
    )  # fmt: skip
    return Coding(f"vector of {bits} bits, predictor {predictor}{', wrapping' if wrap else ''}", ds, values)


def _compare(context: Context, arm: Arm, coding: Coding, limits: Limits | None) -> None:
    arm.counts["rounds"] += 1
    path = coding.write(context.folder / "one.dcm")
    ours = _ours(path, limits)
    if ours is None:
        arm.counts["refused"] += 1
        may = "wrapping" in coding.name or (limits is None and "12-bit" in coding.name)
        arm.require(may, f"refused although whole and true: {coding.name}")
        return
    off = int(np.abs(ours - coding.expected).max())
    theirs = None if "wrapping" in coding.name else _theirs(path, coding.ds, context.folder)
    apart = 0
    if theirs is not None:
        arm.counts["against DCMTK"] += 1
        apart = int(np.abs(ours - theirs).max())
    good = off <= coding.loss and apart <= (LOSSY_APART if coding.loss else 0)
    arm.counts["wrong" if not good else "exact" if off == 0 else "within the loss"] += 1
    arm.require(off <= coding.loss, f"{coding.name}: off its source")
    arm.require(good or off > coding.loss, f"{coding.name}: two decoders differ")


def _ours(path: Path, limits: Limits | None) -> Values | None:
    ds = dcmread(path)
    try:
        form = pixels.read_format(ds, str(ds.file_meta.TransferSyntaxUID), 1 << 28)
        return pixels.stored_values(pixels.stored_frame(ds, form, limits), form)
    except CannotLook:
        return None


def _theirs(path: Path, ds: Dataset, folder: Path) -> Values | None:
    """By DCMTK; None where it does not know the coding, or nothing is coded."""
    syntax = UID(ds.file_meta.TransferSyntaxUID)
    if not syntax.is_encapsulated or syntax.startswith(NOT_OF_DCMTK) or not (DCMTK / "dcmdjpeg").exists():
        return None
    out = folder / "theirs.dcm"
    tool = DCMTK / TOOLS.get(str(syntax), "dcmdjpeg")
    if subprocess.run([tool, path, out], capture_output=True, check=False).returncode:
        return None
    other = dcmread(io.BytesIO(out.read_bytes()))
    values = np.frombuffer(other.PixelData, "<u2" if ds.BitsAllocated == 16 else "u1")
    return values[: ds.Rows * ds.Columns].reshape(ds.Rows, ds.Columns).astype(np.int64)


def the_decoder_is_believed(context: Context) -> Arm:
    """As pydicom would do it: the first plug-in that returns anything, and nobody looks."""

    def believed(form: Any, frame: bytes, said: object) -> NDArray[Any]:
        return pixels._by_pydicom(pixels._alone(form, frame), form, 0)

    with patch.object(pixels, "_lossless", believed):
        return agreeing(context)


register(
    17, "decoders differ: ours, DCMTK's and the source", agreeing, suite="hospital",
    the_decoder_is_believed=Control(r"off its source|two decoders differ", the_decoder_is_believed),
)  # fmt: skip
