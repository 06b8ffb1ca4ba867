"""What is fuzzed, and what must hold for every input whatever its bytes.

A target's `check` takes one input and returns whether it was accepted; a broken promise is an AssertionError, and any
other exception that leaves it is a fault as well. Inputs are plain bytes, so that a corpus, hypothesis, a mutator and
a coverage-guided engine drive the same code.
"""

import io
import random
import struct
import time
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pydicom
from pydicom.dataelem import DataElement, RawDataElement

from scp import part10
from scp.admission.structure import DEFLATED_LITTLE, NO_BEGINNING, WANTED, Limits, inflate, walk
from scp.errors import StructureError
from scp.network import command_set
from scp.status import Answer
from tests.fuzz.children import (
    ANSWER_WORDS,
    STORED_WORDS,
    check_answer,
    check_stored,
    make_answer,
    make_stored,
)
from tests.fuzz.data_sets import SYNTAXES, WORDS, deflate, make
from tests.fuzz.mutate import mutated, pick
from tests.fuzz.pdus import PDU_WORDS, REQUEST_WORDS, check_pdu, check_request, make_pdus, make_request
from tests.support.encoded import CT

CORPUS: Final = Path(__file__).parent / "corpus"
CPU_SECONDS_MAX: Final = 1.0  # for an input of a few KB, 64 MB of free inflation included, on a machine of our day
CPU_TIMES_MAX: Final = 8.0  # on a slower one: so many times what it takes this machine to inflate those 64 MB
TRIES: Final = 3  # what the input is the cause of is there each time; a collection of garbage is not
LIMITS: Final = Limits(nesting=32, elements=5000)


@dataclass(frozen=True)
class Target:
    """make: a whole input. words: what the mutator may put in. compare: costs more, so it is asked less often.
    memory_max_bytes: of Python objects, for any input but a deflated one. short: mutated inputs of the short form."""

    name: str
    check: Callable[[bytes], bool]
    make: Callable[[random.Random], bytes]
    words: tuple[bytes, ...]
    compare: Callable[[bytes], None] = lambda data: None
    memory_max_bytes: int = 256 * 1024
    short: int = 2500

    @property
    def corpus(self) -> dict[str, bytes]:
        return {path.stem: path.read_bytes() for path in sorted((CORPUS / self.name).glob("*.bin"))}

    def input(self, rng: random.Random, seeds: list[bytes]) -> bytes:
        """One input: made whole or taken from the corpus, and mostly damaged."""
        whole = self.make(rng) if rng.randint(0, 1) or not seeds else pick(rng, seeds)
        return mutated(rng, whole, self.words, seeds) if rng.randrange(8) else whole

    def run(self, data: bytes) -> bool:
        """Check one input, its bound of processor time included."""
        accepted, spent = self._timed(data)
        if spent >= CPU_SECONDS_MAX:
            most = max(CPU_SECONDS_MAX, CPU_TIMES_MAX * _inflating_s())
            spent = min(spent, *(self._timed(data)[1] for _ in range(TRIES - 1)))
            assert spent < most, f"{len(data)} bytes took {spent:.1f} s of processor time, {most:.1f} s are allowed"
        return accepted

    def _timed(self, data: bytes) -> tuple[bool, float]:
        began = time.thread_time()
        accepted = self.check(data)
        return accepted, time.thread_time() - began


def _inflating_s() -> float:
    """Of processor time, for the free inflation alone: the control."""
    packed = deflate(bytes(64 << 20))
    began = time.thread_time()
    assert len(zlib.decompress(packed, wbits=-zlib.MAX_WBITS)) == 64 << 20
    return time.thread_time() - began


# --- the structural walker: the first byte says the transfer syntax, the data set follows ---


def walker_input(data: bytes) -> tuple[str, bytes]:
    return SYNTAXES[data[0] % len(SYNTAXES)] if data else SYNTAXES[0], data[1:]


def _walked(data: bytes | memoryview, syntax: str) -> dict[int, bytes] | None:
    try:
        return walk(data, syntax, LIMITS)
    except StructureError:
        return None


def check_walker(data: bytes) -> bool:
    syntax, encoded = walker_input(data)
    values = _walked(encoded, syntax)
    _reads_only_its_own(encoded, syntax, values)
    if values is None:
        return False
    assert set(values) <= WANTED
    assert all(len(value) <= 1024 for value in values.values())
    assert sum(map(len, values.values())) <= len(plain(encoded, syntax))
    return True


def _reads_only_its_own(encoded: bytes, syntax: str, values: dict[int, bytes] | None) -> None:
    """The same bytes inside a longer buffer, with traps on both sides: as a mapped file behind our own header is."""
    trap = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0) * 2
    with memoryview(trap + encoded + trap) as around, around[len(trap) : len(trap) + len(encoded)] as inside:
        assert _walked(inside, syntax) == values, "what lies around the data set changed what was read"


def plain(encoded: bytes, syntax: str) -> bytes:
    return inflate(encoded) if syntax == DEFLATED_LITTLE else encoded


def compare_walker(data: bytes) -> None:
    """Each cut of an accepted data set is refused, or splits it into two whole data sets that hold the same values;
    and pydicom, where it can read an accepted data set at all, finds the same identities."""
    syntax, encoded = walker_input(data)
    values = _walked(encoded, syntax)
    if values is None:
        return
    _agrees_with_pydicom(encoded, syntax, values)
    raw = plain(encoded, syntax)
    inner = SYNTAXES[0] if syntax == DEFLATED_LITTLE else syntax
    for cut in range(min(len(raw), 2048)):
        before = _walked(raw[:cut], inner)
        if before is not None and raw[cut : cut + 2] not in NO_BEGINNING:
            after = _walked(raw[cut:], inner)
            assert after is not None, f"a data set cut at {cut} was accepted although the rest cannot be walked"
            assert before | after == values, f"the two halves at {cut} hold other values than the whole"


def _agrees_with_pydicom(encoded: bytes, syntax: str, values: dict[int, bytes]) -> None:
    ours = {tag: values.get(tag) for tag in WANTED}
    for stop in (False, True):
        theirs = read_by_pydicom(encoded, syntax, stop)
        assert theirs is None or theirs == ours, f"pydicom reads {theirs}, the walker read {ours}"


def read_by_pydicom(encoded: bytes, syntax: str, stop_before_pixels: bool) -> dict[int, bytes | None] | None:
    """The same elements as raw values; None where pydicom gives up."""
    file = io.BytesIO(part10.header(CT, "1.2.3.4", syntax) + encoded)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = pydicom.dcmread(file, stop_before_pixels=stop_before_pixels)
            found = {tag: dataset.get_item(tag) for tag in WANTED}
        except Exception:  # noqa: BLE001 - whatever a reader of files raises
            return None
    return {tag: _raw(item) for tag, item in found.items()}


def _raw(item: DataElement | RawDataElement | None) -> bytes | None:
    """As the walker keeps it: an empty value is not an absent one, an overlong one is cut."""
    if item is None:
        return None
    return (item.value or b"")[:1024] if isinstance(item, RawDataElement) or item.is_empty else b"decoded"


def make_walker(rng: random.Random) -> bytes:
    index = rng.randrange(len(SYNTAXES))
    return bytes([index]) + make(rng, SYNTAXES[index]).data


# --- the command-set reader ---

KNOWN: Final = (0x0000, 0x0002, 0x0100, 0x0110, 0x0120, 0x0700, 0x0800, 0x0900, 0x1000, 0x1002, 0x1008)
COMMAND_WORDS: Final = (
    *(struct.pack("<HH", 0, element) for element in KNOWN),
    *(struct.pack("<HHLH", 0, 0x0100, 2, field) for field in (0x0001, 0x0030, 0x0100, 0x0130, 0x0FFF, 0x8001)),
    *(struct.pack("<HHLH", 0, 0x0800, 2, kind) for kind in (0, 1, 0x0101)),
    b"1.2.840.10008.1.1\0",
)


def check_command(data: bytes) -> bool:
    try:
        elements = command_set.decode(data)
    except ValueError:
        return False
    assert 8 * len(elements) + sum(map(len, elements.values())) <= len(data)
    assert all(0 <= element <= 0xFFFF for element in elements)
    for element in KNOWN:
        _number(elements, element)
        uid = command_set.uid(elements, element)
        assert len(uid) <= len(elements.get(element, b""))
    _answers(elements)
    return True


def _number(elements: dict[int, bytes], element: int) -> None:
    try:
        value = command_set.number(elements, element)
    except ValueError:
        assert len(elements.get(element, b"")) != 2
        return
    assert value == int.from_bytes(elements[element], "little")


def _answers(request: dict[int, bytes]) -> None:
    """What is answered can be read, says which message it answers, and echoes the request's UIDs byte for byte."""
    for respond, kind in (
        (lambda: command_set.store_response(request, Answer(0xC000, "broken", 0x00080018)), 0x8001),
        (lambda: command_set.event_report_response(request, 0x0118), 0x8100),
    ):
        try:
            encoded = respond()
        except ValueError:
            assert len(request.get(0x0110, b"")) != 2
            continue
        answer = command_set.decode(encoded)
        assert int.from_bytes(answer[0], "little") == len(encoded) - 12
        assert list(answer) == sorted(answer)
        assert command_set.number(answer, 0x0100) == kind
        assert answer[0x0120] == request[0x0110]
        assert all(answer.get(echoed) == request.get(echoed) for echoed in (0x0002, 0x1000))


def compare_command(data: bytes) -> None:
    """Where the reader accepts, every element is where a plain reading of implicit VR puts it; nothing is left over."""
    try:
        elements = command_set.decode(data)
    except ValueError:
        for end in range(len(data)):  # a whole command set with bytes behind it stays refused, however it is cut
            if _is_command(data[:end]):
                assert not _is_command(data[end:])
        return
    again = b"".join(struct.pack("<HHL", 0, tag, len(value)) + value for tag, value in elements.items())
    assert command_set.decode(again) == elements
    assert len(again) <= len(data)


def _is_command(data: bytes) -> bool:
    try:
        command_set.decode(data)
    except ValueError:
        return False
    return True


def make_command(rng: random.Random) -> bytes:
    elements = {
        0x0002: b"1.2.840.10008.5.1.4.1.1.2\0",
        0x0100: pick(rng, (b"\1\0", b"\x30\0", b"\0\1", b"\x30\1", b"\xff\x0f")),
        0x0110: rng.randrange(0x10000).to_bytes(2, "little"),
        0x0700: b"\0\0",
        0x0800: pick(rng, (b"\1\0", b"\1\1")),
        0x1000: b"1.2.3.4\0",
    }
    kept = {tag: value for tag, value in elements.items() if rng.randrange(8)}
    body = b"".join(struct.pack("<HHL", 0, tag, len(value)) + value for tag, value in kept.items())
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


PDU = Target("pdu", check_pdu, make_pdus, PDU_WORDS)
REQUEST = Target("associate_rq", check_request, lambda rng: make_request(rng)[6:], REQUEST_WORDS)
WALKER = Target("walker", check_walker, make_walker, WORDS, compare_walker)
COMMAND = Target("command_set", check_command, make_command, COMMAND_WORDS, compare_command)
# A length that lies is asked of the kernel at once: what holds there is the child's own limit of memory.
STORED = Target("stored_file", check_stored, make_stored, STORED_WORDS, memory_max_bytes=8 << 30, short=400)
ANSWER = Target("child_answer", check_answer, make_answer, ANSWER_WORDS, memory_max_bytes=2 << 20)
TARGETS: Final = {target.name: target for target in (PDU, REQUEST, COMMAND, WALKER, STORED, ANSWER)}
