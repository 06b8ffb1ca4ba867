"""15: what the header says of the pixels is a lie, in every coding: never inferred, always with a reason.

A lie is an element that contradicts the pixel data. What contradicts nothing - rows for columns of the same product,
MONOCHROME1 for MONOCHROME2, a lower Bits Stored of samples that are not coded - nobody can know, and is not tried.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.tag import Tag
from pydicom.uid import UID, ImplicitVRLittleEndian

from config.settings import ReceiveSettings
from scp.network.contexts import transfer_syntaxes
from tests.torture.codings import Coding, changed, chest, made, relabelled, save
from tests.torture.experiment import Arm, Context, Control, register
from tests.torture.looking import analyser, is_inferred, look, memory_kb, mutated_child

Lie = tuple[str, Callable[[Dataset], None]]
CHILD_MAX_KB = 700_000
GROWTH_MAX_KB = 64_000
FOR_CONTROLS = ("explicit little endian", "JPEG Baseline", "JPEG Lossless of 12 bits, predictor 1")
LIES, LABELS = 20, 4  # of each coding in the short form, chosen by the seed; all of them in the long one
SAME = 0.02  # of a probability: what was inferred was inferred from the right pixels
CHANGES: dict[str, tuple[Any, ...]] = {
    "Rows": (0, 1, 80, 159, 161, 320, 65535, None),
    "Columns": (0, 1, 80, 159, 161, 320, 65535, None),
    "BitsAllocated": (0, 1, 12, 32, 64, None),
    "BitsStored": (0, 17, 33, 65535),
    "HighBit": (3, 6, 16, 65535),
    "SamplesPerPixel": (0, 2, 3, 4, None),
    "NumberOfFrames": (0, -1, 2, 99, 2_000_000_000),
    "PhotometricInterpretation": ("RGB", "PALETTE COLOR", "YBR_FULL_422", "ARGB", "MONOCHROME3", "", None),
    "PixelRepresentation": (2, 65535),
}
COMPRESSED_BITS = (0, 1, 12, 64, None)  # a codestream does not say in how many bits its samples are to be kept
WRONG_VR = {
    "Rows": ("UL", 160), "Columns": ("UL", 160), "BitsAllocated": ("UL", 16), "BitsStored": ("UL", 12),
    "SamplesPerPixel": ("UL", 1), "PixelRepresentation": ("UL", 0), "HighBit": ("UL", 11),
}  # fmt: skip
TWO_VALUES = {"Rows": [160, 160], "BitsAllocated": [16, 16], "SamplesPerPixel": [1, 1]}
NOT_IMPLICIT = {"NumberOfFrames": ("US", 1), "Rows ": ("SS", 160), "PixelData": ("OF", b"")}  # without a VR no lie


def lies(coding: Coding) -> Iterator[Lie]:
    ds = coding.ds
    ours = {**CHANGES, "BitsAllocated": CHANGES["BitsAllocated"] if _is_stored_as_it_is(coding) else COMPRESSED_BITS}
    for keyword, values in ours.items():
        yield from ((f"{keyword} {value}", _setter(keyword, value)) for value in values if value != ds.get(keyword))
    wrong = WRONG_VR if ds.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian else WRONG_VR | NOT_IMPLICIT
    for keyword, (vr, value) in wrong.items():
        yield f"{keyword.strip()} as {vr}", _retyper(keyword.strip(), vr, value)
    for keyword, pair in TWO_VALUES.items():
        yield f"two {keyword}", _setter(keyword, pair)
    yield from _of_length(coding)


def _is_stored_as_it_is(coding: Coding) -> bool:
    return not coding.ds.file_meta.TransferSyntaxUID.is_encapsulated or "RLE" in coding.name


def _of_length(coding: Coding) -> Iterator[Lie]:
    data = coding.ds.PixelData
    shorter = {"none": None, "empty": b"", "half": data[: len(data) // 4 * 2], "2 bytes less": data[:-2]}
    for name, value in shorter.items():
        yield f"PixelData {name}", _setter("PixelData", value)
    if not coding.ds.file_meta.TransferSyntaxUID.is_encapsulated:
        yield "PixelData 2 bytes more", _setter("PixelData", data + b"\0\0")
        return
    frame = get_frame(data, 0, number_of_frames=1)
    for share in (0.3, 0.6, 0.9):
        for end in (b"", b"\xff\xd9"):
            cut = frame[: int(len(frame) * share)] + end
            yield f"frame cut to {share:.0%}{' and closed' if end else ''}", _setter("PixelData", _encapsulated(cut))
    yield "frame of zeros", _setter("PixelData", _encapsulated(bytes(len(frame))))
    if coding.ds.BitsStored == 12 and coding.loss == 0 and "RLE" not in coding.name:
        yield "BitsStored 8", _all_of(_setter("BitsStored", 8), _setter("HighBit", 7))
        yield "HighBit 15", _setter("HighBit", 15)


def _encapsulated(frame: bytes) -> bytes:
    return encapsulate([frame + b"\0" * (len(frame) % 2)])


def _setter(keyword: str, value: Any) -> Callable[[Dataset], None]:
    def change(ds: Dataset) -> None:
        if value is None:
            if keyword in ds:
                delattr(ds, keyword)
        elif keyword == "PixelData":
            ds[keyword]._value = value  # and its VR stays
        else:
            setattr(ds, keyword, value)

    return change


def _retyper(keyword: str, vr: str, value: Any) -> Callable[[Dataset], None]:
    def change(ds: Dataset) -> None:
        ds[keyword] = DataElement(Tag(keyword), vr, ds.PixelData if keyword == "PixelData" else value)

    return change


def _all_of(*changes: Callable[[Dataset], None]) -> Callable[[Dataset], None]:
    def change(ds: Dataset) -> None:
        for one in changes:
            one(ds)

    return change


def lying(context: Context) -> Arm:
    return _tried(context, "")


def lengths_are_believed(context: Context) -> Arm:
    return _tried(context, "import inference.pixels as p; p._check_length = lambda *a: None")


def the_end_is_not_looked_for(context: Context) -> Arm:
    code = "import inference.pixels as p; p.is_whole = lambda *a: True; p.is_proven = lambda *a: True"
    return _tried(context, code)


def _tried(context: Context, mutation: str) -> Arm:
    arm = Arm()
    arm.counts.update({"rounds": 0, "refused": 0, "inferred": 0, "without a reason": 0})
    codings = made(chest(np.random.default_rng(context.rng.randrange(1 << 32))), context.folder)
    if mutation:
        codings = [coding for coding in codings if coding.name in FOR_CONTROLS]
    with mutated_child(mutation), analyser(context.folder) as node:
        good = _good(context, arm, node, codings)
        before_kb = memory_kb(os.getpid(), "VmRSS")
        for coding in codings:
            context.progress(coding.name)
            _lie(context, arm, node, coding, every=context.long or bool(mutation))
        if not mutation:
            _mislabel(context, arm, node, codings, good)
        child_kb = max(memory_kb(child.pid or 0, "VmHWM") for child in node._pool.children)
        _good(context, arm, node, codings)
        arm.counts["children"] = sum(child.starts for child in node._pool.children)
    growth_kb = memory_kb(os.getpid(), "VmRSS") - before_kb
    arm.require(child_kb < CHILD_MAX_KB, f"the decode child once held {child_kb // 1000} MB")
    arm.require(growth_kb < GROWTH_MAX_KB, f"the process that infers grew by {growth_kb // 1000} MB")
    arm.figures["child at most"] = f"{child_kb / 1000:.0f} MB"
    arm.figures["node"] = f"{growth_kb / 1000:+.0f} MB"
    arm.done = f"{len(codings)} codings"
    return arm


def _good(context: Context, arm: Arm, node: Any, codings: list[Coding]) -> dict[str, float]:
    """Each coding as it is, which must be inferred: else nothing was shown. Their probabilities."""
    paths = [coding.write(context.folder / f"good-{i}.dcm") for i, coding in enumerate(codings)]
    probabilities = {}
    for coding, result in zip(codings, look(node, paths), strict=True):
        arm.require(is_inferred(result), f"the true {coding.name} is not inferred: {result.reason_code}")
        probabilities[coding.name] = result.findings[0].probability if result.findings else 0.0
    return probabilities


def _lie(context: Context, arm: Arm, node: Any, coding: Coding, every: bool) -> None:
    """every: all lies are told. A control must tell all: chance might choose only those that something else finds."""
    told = list(lies(coding))
    told = told if every else context.rng.sample(told, min(len(told), context.rounds(LIES, len(told))))
    paths = []
    for i, (_, change) in enumerate(told):
        paths.append(save(changed(coding.ds, change), context.folder / f"lie-{i}.dcm"))
    for (name, _), result in zip(told, look(node, paths), strict=True):
        _judge(arm, f"{coding.name}: {name}", result, is_inferred(result))


def _mislabel(context: Context, arm: Arm, node: Any, codings: list[Coding], good: dict[str, float]) -> None:
    """Each coding under every transfer syntax that is accepted: refused, or inferred from the right pixels."""
    every = transfer_syntaxes(ReceiveSettings(accept_deflated=True, accept_big_endian=True))
    for coding in codings:
        others = [uid for uid in every if uid != coding.ds.file_meta.TransferSyntaxUID]
        others = others if context.long else context.rng.sample(others, LABELS)
        paths = [_relabelled(coding, uid, context.folder / f"label-{i}.dcm") for i, uid in enumerate(others)]
        for uid, result in zip(others, look(node, paths), strict=True):
            wrong = is_inferred(result) and abs(result.findings[0].probability - good[coding.name]) > SAME
            _judge(arm, f"{coding.name} as {UID(uid).name}", result, wrong)


def _relabelled(coding: Coding, uid: str, path: Path) -> Path:
    content = coding.write(path).read_bytes()
    path.write_bytes(relabelled(content, coding.ds.file_meta.TransferSyntaxUID, uid))
    return path


def _judge(arm: Arm, what: str, result: Any, wrong: bool) -> None:
    arm.counts["rounds"] += 1
    arm.counts["inferred" if is_inferred(result) else "refused"] += 1
    silent = not is_inferred(result) and not (result.reason and result.reason_code)
    arm.counts["without a reason"] += silent
    arm.require(not wrong, f"inferred: {what}")
    arm.require(not silent, f"no reason: {what}")


register(
    15, "the header lies about the pixels, in every coding", lying, suite="hospital",
    lengths_are_believed=Control(r"^inferred: .*(Rows|Columns|PixelData)", lengths_are_believed),
    the_end_is_not_looked_for=Control(r"^inferred: .*frame cut", the_end_is_not_looked_for),
)  # fmt: skip
