"""What the analyse role reads of a stored file, and what it believes of the process that reads it.

Two targets. A stored file goes through the code of the decode child and of the child that reads whose an image is: it
gives an answer that the parent believes word for word, or the declared refusal. And whatever bytes a child says, be it
taken over by what it decoded, the parent has facts and pixels that keep every bound, or an instance that nobody looked
at, and a child that it trusts no more.
"""

import io
import json
import math
import os
import random
import struct
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydicom import config as pydicom_config
from structlog.testing import capture_logs

from config.settings import LookSettings
from inference.decode_child import Look, _answer_render
from inference.errors import CannotLook
from inference.header import HeaderFacts, facts_from_json
from inference.sandbox import Decoded, Wanted, _decoded, _refusal
from node.looking.header import HeaderChild
from scp import part10
from sr_writer.errors import SourceUnreadable
from sr_writer.whose import SAID, is_whose, read_whose
from tests.fuzz.data_sets import DEFLATED, EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE, Making, deflate
from tests.fuzz.mutate import pick
from tests.support.encoded import CT

SIDE, DISPLAY_SIDE = 4, 8
WANTED: Final = (Wanted("header", SIDE, SIDE, "squash"), Wanted((40.0, 400.0), SIDE, SIDE, "letterbox"))
INPUTS: Final = [{"window": w.window, "height": w.height, "width": w.width, "fit": w.fit} for w in WANTED]
SYNTAXES: Final = (EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED)
DECODED_MAX: Final = 1 << 20
SETTINGS: Final = LookSettings()
PATIENT_MAX: Final = 1_000_000_000_000  # no count that an image has is larger

# --- a stored file, in the code of the children ---

Elements = tuple[tuple[int, str, tuple[bytes, ...]], ...]
ELEMENTS: Final[Elements] = (
    (0x00080005, "CS", (b"ISO_IR 100", b"ISO_IR 192", b"\\ISO 2022 IR 87", b"GB18030", b"nonsense")),
    (0x00080008, "CS", (b"ORIGINAL\\PRIMARY", b"DERIVED\\SECONDARY\\", b"\\\\\\")),
    (0x00080060, "CS", (b"DX", b"CR", b"ct ", b"\0\0")),
    (0x00080068, "CS", (b"FOR PROCESSING", b"FOR PRESENTATION")),
    (0x00081030, "LO", (b"Thorax p.a.", b"\x1b$B;3ED\x1b(B", b"\xff\xfe\x00", b"")),
    (0x0008103E, "LO", (b"CHEST LAT", b"a\\b\\c", b"\xed\xa0\x80")),
    (0x00100010, "PN", (b"Torture^Patient", b"\xd4\xc0==", b"A^B^C^D^E^F=G=H=I")),
    (0x00100020, "LO", (b"4711", b"", b"4711\\12")),
    (0x00100030, "DA", (b"19600229", b"1960.02.29", b"99999999")),
    (0x00101010, "AS", (b"061Y", b"003M", b"-1Y ", b"\xb2\xb2\xb2Y")),
    (0x00180015, "CS", (b"CHEST", b"HAND", b"chest\\abdomen")),
    (0x00181030, "LO", (b"Chest PA", b"")),
    (0x00185101, "CS", (b"PA", b"AP", b"LL")),
    (0x00200020, "CS", (b"L\\F",)),
    (0x00280002, "US", (b"\1\0", b"\3\0", b"")),
    (0x00280004, "CS", (b"MONOCHROME1", b"MONOCHROME2", b"RGB")),
    (0x00280008, "IS", (b"1", b"2", b"-1", b"999999999999", b"\xb2")),
    (0x00280010, "US", (b"\4\0", b"\0\0", b"\xff\xff", b"\4\0\4\0")),
    (0x00280011, "US", (b"\4\0", b"\1\0")),
    (0x00280100, "US", (b"\x10\0", b"\x08\0", b"\1\0")),
    (0x00280101, "US", (b"\x0c\0", b"\x10\0", b"\x08\0")),
    (0x00280102, "US", (b"\x0b\0", b"\x0f\0", b"\x07\0")),
    (0x00280103, "US", (b"\0\0", b"\1\0", b"\2\0")),
    (0x00281050, "DS", (b"40", b"40\\1e29", b"-1e-300", b"nan", b"1e999")),
    (0x00281051, "DS", (b"400", b"0", b"-1", b"1e-320")),
    (0x00281052, "DS", (b"-1024", b"1e300")),
    (0x00281053, "DS", (b"1", b"0", b"1e-300", b"-1e300")),
    (0x00281056, "CS", (b"LINEAR", b"SIGMOID", b"LINEAR_EXACT")),
)
FRAME: Final = bytes(range(32))


@contextmanager
def _as_in_the_child() -> Iterator[None]:
    """What its main() sets for its whole life."""
    before = pydicom_config.settings.reading_validation_mode
    pydicom_config.settings.reading_validation_mode = pydicom_config.IGNORE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        pydicom_config.settings.reading_validation_mode = before


@cache
def _folder() -> "tempfile.TemporaryDirectory[str]":
    """In memory where there is room; gone with this process."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    return tempfile.TemporaryDirectory(prefix="opentriage-fuzz-", dir=memory, ignore_cleanup_errors=True)


def check_stored(data: bytes) -> bool:
    """data: a whole Part 10 file."""
    path = Path(_folder().name) / "stored.dcm"
    path.write_bytes(data)
    try:
        with _as_in_the_child():
            _whose(path)
            return _looked_at(path, data)
    finally:
        path.unlink()


def _whose(path: Path) -> None:
    try:
        said = read_whose(path)
    except SourceUnreadable:
        return
    assert is_whose(json.loads(json.dumps(said))), "what the child read of a patient is not believed"


def _looked_at(path: Path, data: bytes) -> bool:
    request = {"path": path, "as_kind": None, "age_years": None, "decoded_max_bytes": DECODED_MAX, "dcmdjpeg": ""}
    try:
        look = Look({**request, "cpu_s": 1.0, "wall_s": 1.0, "tables": _tables()})
        facts = look.facts()
        assert facts_from_json(json.loads(json.dumps(facts.to_json()))) == facts, "honest facts are not believed"
    except CannotLook as refusal:
        _is_passed_on(refusal)
        return False
    if not _is_compressed(data):  # C code of others: a fault of theirs would end this process
        _decoded_too(look)
    return True


def _decoded_too(look: Look) -> None:
    try:
        answer, blobs = _answer_render(look, {"inputs": INPUTS, "display_side": DISPLAY_SIDE})
    except CannotLook as refusal:
        _is_passed_on(refusal)
    else:
        keeps_bounds(_decoded(json.loads(json.dumps(answer)), blobs, WANTED, DISPLAY_SIDE))


def _is_passed_on(refusal: CannotLook) -> None:
    said = _refusal(json.loads(json.dumps([refusal.reason_code, refusal.reason])))
    assert (said.reason_code, said.reason) == (refusal.reason_code, refusal.reason), "a reason is not passed on"


def _tables() -> dict[str, Any]:
    own = (SETTINGS.body_part_descriptions, SETTINGS.frontal_descriptions, SETTINGS.lateral_descriptions)
    return dict(zip(("body_parts", "frontal", "lateral"), own, strict=True))


def _is_compressed(data: bytes) -> bool:
    return b"1.2.840.10008.1.2.4." in data or b"1.2.840.10008.1.2.5" in data


def make_stored(rng: random.Random) -> bytes:
    """A stored image of a few pixels; one value in a few is not what it should be."""
    syntax = SYNTAXES[rng.randrange(len(SYNTAXES))]
    making = Making(rng, syntax)
    parts = {tag: making.element(tag, "UI", uid) for tag, uid in ((0x00080016, CT), (0x00080018, "1.2.3.4"))}
    for tag, vr, values in ELEMENTS:
        if rng.randrange(5):
            value = values[0] if rng.randrange(4) else pick(rng, values)
            parts[tag] = making.element(tag, vr if rng.randrange(40) else "UN", value + b" " * (len(value) % 2))
    for tag in (0x00082218, 0x00540220):
        if not rng.randrange(4):
            parts[tag] = making.sequence(tag, 2)
    if rng.randrange(8):
        parts[0x7FE00010] = making.element(0x7FE00010, "OW", FRAME)
    body = b"".join(parts[tag] for tag in sorted(parts))
    return part10.header(CT, "1.2.3.4", syntax) + (deflate(body) if syntax == DEFLATED else body)


STORED_WORDS: Final = (
    *(struct.pack("<HH", tag >> 16, tag & 0xFFFF) for tag, _, _ in ELEMENTS),
    *(vr.encode() for vr in ("SQ", "UN", "US", "SS", "DS", "IS", "OW", "OB", "PN", "AT", "FD", "ZZ")),
    b"1.2.840.10008.1.2.1\0",
    b"\xff\xff\xff\xff",
)

# --- what a child says, in the parent ---


class _Process:
    """A child that said `data` and ended."""

    pid = -1

    def __init__(self, data: bytes) -> None:
        reading, writing = os.pipe()
        os.write(writing, data[:60_000])  # a pipe holds that much
        os.close(writing)
        self.stdin, self.stdout = io.BytesIO(), os.fdopen(reading, "rb", 0)

    def poll(self) -> int | None:
        return None

    def wait(self, within_s: float | None = None) -> int:
        return 0


class _Parent(HeaderChild):
    """The parent's side alone."""

    def __init__(self, data: bytes) -> None:
        super().__init__(SETTINGS)
        self.trusts = True
        self._stand_in = _Process(data)
        self._process = self._stand_in  # type: ignore[assignment]

    def start(self) -> None:
        pass

    def close(self) -> None:
        self.trusts = False

    def end(self) -> None:
        self._stand_in.stdout.close()


OPERATIONS: Final = 4
RAW: Final = 0x80


def check_answer(data: bytes) -> bool:
    """data: which question was asked (or RAW: without framing what follows), JSON, a line's end, blobs."""
    kind, body = (data[0], data[1:]) if data else (0, b"")
    if not kind & RAW:
        text, _, blobs = body.partition(b"\n")
        body = struct.pack("<I", len(text)) + text + blobs
    parent = _Parent(body)
    try:
        with capture_logs():
            _asked(parent, kind % OPERATIONS)
    except CannotLook as refusal:
        _is_sayable(refusal)
        return False
    finally:
        parent.end()
    return True


def _is_sayable(refusal: CannotLook) -> None:
    assert len(refusal.reason_code) <= 40
    assert len(refusal.reason) <= 300
    assert _is_plain(refusal.reason_code)
    assert _is_plain(refusal.reason)


def _asked(parent: _Parent, kind: int) -> None:
    path = Path("/nowhere")
    if kind == 0:
        believable(parent.look(path, None, None))
    elif kind == 3:
        said = parent.header(path, SETTINGS.decode_wall_s)
        assert set(said) == set(SAID)
        assert all(_is_plain(text) and len(text) < 1100 for text in said.values())
    else:
        keeps_bounds(parent.decode(WANTED, DISPLAY_SIDE * (kind - 1)), DISPLAY_SIDE * (kind - 1))


def _is_plain(text: str) -> bool:
    """It can be written to a database, a log and a page."""
    return isinstance(text, str) and bool(text.encode() or True)


def believable(facts: HeaderFacts) -> None:
    for value in vars(facts).values():
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, str):
                assert _is_plain(one)
                assert len(one) <= 300
            elif one is not None:
                assert math.isfinite(one)
                assert abs(one) <= PATIENT_MAX
    for uid in (facts.study_instance_uid, facts.series_instance_uid, facts.sop_instance_uid, facts.sop_class_uid):
        assert uid is None or (0 < len(uid) <= 64 and set(uid) <= set("0123456789."))


def keeps_bounds(decoded: Decoded, side: int = DISPLAY_SIDE) -> None:
    assert len(decoded.pictures) == len(decoded.spans) == len(WANTED)
    for picture in decoded.pictures:
        if not isinstance(picture, CannotLook):
            assert picture.shape == (SIDE, SIDE)
            assert picture.dtype == np.float32
            assert np.isfinite(picture).all()
    assert all(math.isfinite(span) for span in decoded.spans)
    assert all(type(count) is int and 0 <= count <= DECODED_MAX for count in (decoded.rows, decoded.columns))
    if decoded.display is not None:
        assert decoded.display.dtype == np.uint8
        assert decoded.display.ndim == 2
        assert 0 < min(decoded.display.shape) <= max(decoded.display.shape) <= side


FACTS: Final = HeaderFacts("1.2.3.1", "1.2.3.2", "1.2.3.4", CT, "DX", "CHEST", "BodyPartExamined", "PA", "ViewPosition",
                           ("Chest",), 61.0, "PatientAge", False, ("ORIGINAL", "PRIMARY"), True, 4, 4, 1, 1, 12,
                           "MONOCHROME2").to_json()  # fmt: skip
HOSTILE: Final = (
    b"null", b"true", b"-1", b"0", b"2147483648", b"1" + b"0" * 400, b"1e400", b"-1e400", b"NaN", b"Infinity", b"1.5",
    b'""', b'"\\ud800"', b'"\\u0000"', b'"\\u202e"', b'"' + b"x" * 301 + b'"', b'"error"', b"[]", b"{}", b"[[]]",
    b"[-1, 16]", b"[8, 8]", b"[0, 0]", b'["decode_limit", "Because."]', b'{"error": ["a", "b"]}',
    b"[" * 900 + b"]" * 900,
)  # fmt: skip
ANSWER_WORDS: Final = (*HOSTILE, b'"error": ', b'"tired": true, ', b'"blobs": [64, 64]', b"\n", b'"display": [8, 8]')


def make_answer(rng: random.Random) -> bytes:
    """An answer as it should be, or with one or two values of another kind."""
    kind = rng.randrange(OPERATIONS)
    said, blobs = _honest(kind, rng)
    text = json.dumps({**said, "blobs": [len(blob) for blob in blobs]}).encode()
    for _ in range(rng.randrange(3)):
        text = _with_a_lie(rng, text)
    return bytes([kind]) + text + b"\n" + b"".join(blobs)


def _honest(kind: int, rng: random.Random) -> tuple[dict[str, Any], list[bytes]]:
    if kind == 0:
        return {"facts": FACTS}, []
    if kind == 3:
        return {"header": dict.fromkeys(SAID, "1960")}, []
    pictures = [np.full((SIDE, SIDE), rng.random(), np.float32).tobytes() for _ in WANTED]
    said: dict[str, Any] = {"pictures": [{"low": 0.0, "high": 1.0}] * len(WANTED), "display": None, "rows": 4}
    said |= {"columns": 4, "source_sha256": "0" * 64}
    if kind == 2:
        said["display"] = [DISPLAY_SIDE, DISPLAY_SIDE]
        pictures.append(bytes(DISPLAY_SIDE**2))
    return said, pictures


def _with_a_lie(rng: random.Random, text: bytes) -> bytes:
    """One value between a colon and a comma replaced."""
    starts = [at + 2 for at in range(len(text)) if text.startswith(b": ", at)]
    if not starts:
        return text
    start = starts[rng.randrange(len(starts))]
    ends = [at for at in (text.find(b",", start), text.find(b"}", start)) if at > 0]
    return text[:start] + pick(rng, HOSTILE) + text[min(ends, default=len(text)) :]
