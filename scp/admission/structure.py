"""Walks an encoded data set once, without decoding it, and proves that it ends exactly where its bytes end.

pydicom is no integrity check: it reads truncated data sets without a word. This walker visits every element, steps
over values (pixel data is never read), and gathers the few top-level values that admission needs. It is iterative, so
no nesting can exhaust the stack. Encoding rules: PS3.5 7; encapsulated pixel data: PS3.5 A.4.

What two readers could read differently is refused, for a data set that is one patient to the walker and another to
pydicom must not come in: an unknown value representation, an identity in a binary one, implicit VR that begins like
explicit VR, identities behind the pixel data, and the like.
"""

import threading
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from struct import Struct
from typing import Final

from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import dictionary_VR
from pydicom.valuerep import EXPLICIT_VR_LENGTH_16, EXPLICIT_VR_LENGTH_32, STR_VR, VR

from scp.errors import StructureError

Buffer = bytes | memoryview  # an mmap is wrapped in a memoryview

IMPLICIT_LITTLE: Final = "1.2.840.10008.1.2"
EXPLICIT_BIG: Final = "1.2.840.10008.1.2.2"
DEFLATED_LITTLE: Final = "1.2.840.10008.1.2.1.99"

SPECIFIC_CHARACTER_SET: Final = 0x00080005
SOP_CLASS_UID: Final = 0x00080016
SOP_INSTANCE_UID: Final = 0x00080018
STUDY_DATE: Final = 0x00080020
STUDY_TIME: Final = 0x00080030
MODALITY: Final = 0x00080060
MANUFACTURER: Final = 0x00080070
MANUFACTURER_MODEL_NAME: Final = 0x00081090
TIMEZONE_OFFSET_FROM_UTC: Final = 0x00080201
PATIENT_NAME: Final = 0x00100010
PATIENT_ID: Final = 0x00100020
PATIENT_BIRTH_DATE: Final = 0x00100030
STUDY_INSTANCE_UID: Final = 0x0020000D
SERIES_INSTANCE_UID: Final = 0x0020000E
WANTED: Final = frozenset(
    {
        SOP_CLASS_UID,
        SOP_INSTANCE_UID,
        STUDY_DATE,
        STUDY_TIME,
        MODALITY,
        MANUFACTURER,
        MANUFACTURER_MODEL_NAME,
        TIMEZONE_OFFSET_FROM_UTC,
        STUDY_INSTANCE_UID,
        SERIES_INSTANCE_UID,
        SPECIFIC_CHARACTER_SET,
        PATIENT_NAME,
        PATIENT_ID,
        PATIENT_BIRTH_DATE,
    }
)
OF_A_PATIENT: Final = frozenset({SPECIFIC_CHARACTER_SET, PATIENT_NAME, PATIENT_ID, PATIENT_BIRTH_DATE})
NOTED: Final = WANTED | {0x7FE00010}
WANTED_MAX_BYTES: Final = 1024  # a longer value than any of these may have

PIXEL_DATA: Final = 0x7FE00010
ITEM: Final = 0xFFFEE000
ITEM_END: Final = 0xFFFEE00D
SEQUENCE_END: Final = 0xFFFEE0DD
UNDEFINED: Final = 0xFFFFFFFF

# Groups 0000, 0002 and FFFE, little endian: whatever the transfer syntax, pydicom takes what begins so, behind a file
# header, for a command set, for more of the header, or for the end of an item.
NO_BEGINNING: Final = frozenset((b"\0\0", b"\2\0", b"\xfe\xff"))
LETTERS: Final = frozenset(range(ord("A"), ord("Z") + 1))
SHORT_VRS: Final = frozenset(vr.encode() for vr in EXPLICIT_VR_LENGTH_16)  # PS3.5 7.1.2
LONG_VRS: Final = frozenset(vr.encode() for vr in EXPLICIT_VR_LENGTH_32)  # a reserved field and a 32-bit length
# Those in which every reader reads the same text. pydicom makes numbers of DS and IS; UN it reads by its dictionary.
TEXT_VRS: Final = frozenset(vr.encode() for vr in (*(STR_VR - {VR.DS, VR.IS}), VR.UN))
SEQUENCE_TAGS: Final = frozenset(tag for tag, entry in DicomDictionary.items() if entry[0] == "SQ")

INFLATED_FREE_BYTES: Final = 64 * 1024 * 1024  # may be inflated to, whatever the ratio
INFLATED_RATIO_MAX: Final = 100
INFLATED_MAX_BYTES: Final = 512 * 1024 * 1024
_INFLATING: Final = threading.Lock()  # one at a time holds that much, whoever sends

# what a level of nesting holds
_DATA_SET, _SEQUENCE, _FRAGMENTS = range(3)


@dataclass(frozen=True)
class Limits:
    """nesting: levels of sequences; elements: elements, items and fragments together."""

    nesting: int = 32
    elements: int = 200_000


@dataclass(frozen=True)
class _Encoding:
    """How headers are laid out: header = tag and, for explicit VR, VR and 16-bit length; long = 32-bit length."""

    explicit: bool
    header: Struct
    item: Struct
    long: Struct


_EXPLICIT_LITTLE = _Encoding(True, Struct("<HH2sH"), Struct("<HHL"), Struct("<L"))
_EXPLICIT_BIG = _Encoding(True, Struct(">HH2sH"), Struct(">HHL"), Struct(">L"))
_IMPLICIT_LITTLE = _Encoding(False, Struct("<HHL"), Struct("<HHL"), Struct("<L"))


def walk(data: Buffer, transfer_syntax_uid: str, limits: Limits = Limits()) -> dict[int, bytes]:
    """Top-level raw values of WANTED tags in `data`, an encoded data set without file meta information.

    Raises StructureError, with the offending tag where known, unless every element fits and the last ends at the end.
    """
    if bytes(data[:2]) in NO_BEGINNING:
        raise StructureError("a data set does not begin like this")
    if transfer_syntax_uid == DEFLATED_LITTLE:
        with _INFLATING:
            return _Walk(inflate(data), limits).run(_EXPLICIT_LITTLE)
    encoding = {IMPLICIT_LITTLE: _IMPLICIT_LITTLE, EXPLICIT_BIG: _EXPLICIT_BIG}.get(
        transfer_syntax_uid, _EXPLICIT_LITTLE
    )
    return _Walk(data, limits).run(encoding)


def text(values: Mapping[int, bytes], tag: int) -> str:
    """A value as text without its padding; empty when absent."""
    return values.get(tag, b"").decode("utf-8", "replace").strip(" \0")


def inflate(data: Buffer) -> bytes:
    """The deflated data set (PS3.5 A.5), inflated within bounds. Raises StructureError on a bomb or a broken stream."""
    cap = min(INFLATED_MAX_BYTES, max(INFLATED_FREE_BYTES, INFLATED_RATIO_MAX * len(data)))
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = stream.decompress(data, cap)
    except zlib.error:
        raise StructureError("deflate stream is broken") from None
    if stream.unconsumed_tail:
        raise StructureError("deflated data set is too large")
    if not stream.eof or stream.unused_data not in (b"", b"\0"):
        raise StructureError("deflate stream does not end with the data set")
    return inflated


class _Walk:
    """One pass over one buffer. State: position, the open levels, the elements still allowed."""

    def __init__(self, data: Buffer, limits: Limits) -> None:
        self.data = data
        self.size = len(data)
        self.limits = limits
        self.left = limits.elements
        self.values: dict[int, bytes] = {}
        self.pixels = False  # were seen
        # open levels above the current one: (kind, end, undefined length?, encoding, tag that opened it)
        self.levels: list[tuple[int, int, bool, _Encoding, int]] = []

    def run(self, encoding: _Encoding) -> dict[int, bytes]:
        kind, end, undefined, tag, position = _DATA_SET, self.size, False, 0, 0
        self.unambiguous(position, encoding)
        levels = self.levels
        while True:
            if position == end and not undefined:
                if not levels:
                    return self.values
                kind, end, undefined, encoding, tag = levels.pop()
                continue
            if kind == _DATA_SET:
                position, step = self.elements(position, end, encoding, top=not levels)
            else:
                position, step = self.item(position, end, encoding, kind, tag)
            if step is None:
                if undefined and position == end:
                    raise StructureError("delimiter is missing", tag)
            elif step is _CLOSED:
                if not undefined and position != end:  # tolerated as the last thing of a defined length
                    raise StructureError("unexpected delimiter", tag)
                kind, end, undefined, encoding, tag = levels.pop()
            else:
                if len(levels) >= 2 * self.limits.nesting:  # a sequence and its item are two levels
                    raise StructureError("sequences are nested too deeply", step.tag)
                levels.append((kind, end, undefined, encoding, tag))
                kind, tag, encoding, undefined = step.kind, step.tag, step.encoding, step.length == UNDEFINED
                end = end if undefined else position + step.length

    def elements(  # noqa: C901 - the hot loop: one call per level, not one per element
        self, position: int, end: int, encoding: _Encoding, top: bool
    ) -> "tuple[int, _Opened | None]":
        """Step over elements until `end`, a delimiter, or a value that has to be entered."""
        data, long_length = self.data, encoding.long.unpack_from
        explicit, header = encoding.explicit, encoding.header.unpack_from
        left = self.left
        while position < end:
            if end - position < 8:
                raise StructureError("element header is cut off", self.peek(position, encoding))
            if explicit:
                group, element, vr, length = header(data, position)
            else:
                group, element, length = header(data, position)
                vr = b""
            tag = group << 16 | element
            left -= 1
            if left < 0:
                raise StructureError("too many elements", tag)
            start = position + 8
            if group == 0xFFFE:
                self.left = left
                return self.delimiter(start, tag, vr)
            if explicit and vr not in SHORT_VRS:
                if vr not in LONG_VRS:  # one of the future would have a 32-bit length, but pydicom reads 16 bits
                    raise StructureError("value representation is unknown", tag)
                if end - start < 4:
                    raise StructureError("element header is cut off", tag)
                length = long_length(data, start)[0]
                start += 4
            if top and (group <= 2 or tag in NOTED):
                self.keep(tag, vr, start, length, end)
            if length == UNDEFINED or vr == b"SQ" or (not explicit and tag in SEQUENCE_TAGS):
                self.left = left
                return start, self.enter(tag, vr, length, end - start, encoding)
            position = start + length
            if position > end:
                raise StructureError("value runs past the end", tag)
        self.left = left
        return position, None

    def keep(self, tag: int, vr: bytes, start: int, length: int, end: int) -> None:
        if tag >> 16 <= 2:
            raise StructureError("group does not belong in a data set", tag)
        if tag in self.values or (tag == PIXEL_DATA and self.pixels):
            raise StructureError("element occurs twice", tag)
        if tag == PIXEL_DATA:
            self.pixels = True
            return
        if self.pixels:  # a reader that stops at the pixel data would not see it
            raise StructureError("element comes after the pixel data", tag)
        if vr and vr not in TEXT_VRS:
            raise StructureError("value representation is not of text", tag)
        if length > end - start or (length > WANTED_MAX_BYTES and tag not in OF_A_PATIENT):
            raise StructureError("value is too long", tag)
        length = min(length, WANTED_MAX_BYTES)  # an overlong name is no reason to refuse an image
        self.values[tag] = bytes(self.data[start : start + length])

    def delimiter(self, position: int, tag: int, vr: bytes) -> "tuple[int, _Opened | None]":
        """The end of an item. vr: what stands where an element has its value representation; pydicom looks at it."""
        if tag != ITEM_END or not self.levels or vr in LONG_VRS:
            raise StructureError("unexpected delimiter", tag)
        return position, _CLOSED

    def enter(self, tag: int, vr: bytes, length: int, room: int, encoding: _Encoding) -> "_Opened":
        """The level inside a sequence or an encapsulated value."""
        if length != UNDEFINED and length > room:
            raise StructureError("value runs past the end", tag)
        if vr == b"UN":  # of undefined length: a sequence in implicit VR, little endian (PS3.5 6.2.2)
            return _Opened(_SEQUENCE, tag, length, _IMPLICIT_LITTLE)
        if vr == b"" and tag != PIXEL_DATA and not _may_be_sequence(tag):
            raise StructureError("length is undefined", tag)
        if vr == b"SQ" or (vr == b"" and tag != PIXEL_DATA):
            return _Opened(_SEQUENCE, tag, length, encoding)
        if vr not in (b"OB", b"OW", b""):
            raise StructureError("length is undefined", tag)
        return _Opened(_FRAGMENTS, tag, length, encoding)

    def item(self, position: int, end: int, encoding: _Encoding, kind: int, owner: int) -> "tuple[int, _Opened | None]":
        """One item of the sequence or of the encapsulated pixel data that `owner` opened."""
        if end - position < 8:
            raise StructureError("item header is cut off", owner)
        group, element, length = encoding.item.unpack_from(self.data, position)
        tag = group << 16 | element
        position += 8
        self.left -= 1
        if self.left < 0:
            raise StructureError("too many elements", owner)
        if tag == SEQUENCE_END:
            return position, _CLOSED
        if tag != ITEM:
            raise StructureError("item is missing", owner)
        if kind == _SEQUENCE:
            if length != UNDEFINED and length > end - position:
                raise StructureError("item runs past the end", owner)
            self.unambiguous(position, encoding)
            return position, _Opened(_DATA_SET, owner, length, encoding)
        if length > end - position:
            raise StructureError("fragment runs past the end", owner)
        return position + length, None

    def unambiguous(self, position: int, encoding: _Encoding) -> None:
        """Implicit VR must not begin like explicit VR: pydicom guesses by the first element. Its length, over 16 KB,
        would have to spell two capital letters; that of an honest first element is a few bytes."""
        start = self.data[position + 4 : position + 6]
        if not encoding.explicit and len(start) == 2 and LETTERS.issuperset(start):
            raise StructureError("implicit VR could be read as explicit", self.peek(position, encoding))

    def peek(self, position: int, encoding: _Encoding) -> int | None:
        """The tag at `position` if that much is there."""
        if self.size - position < 4:
            return None
        byte_order = "big" if encoding is _EXPLICIT_BIG else "little"
        group = int.from_bytes(self.data[position : position + 2], byte_order)  # type: ignore[arg-type]
        return group << 16 | int.from_bytes(self.data[position + 2 : position + 4], byte_order)  # type: ignore[arg-type]


def _may_be_sequence(tag: int) -> bool:
    """Whether implicit VR of undefined length can be a sequence: the dictionary says so, or does not know the tag."""
    try:
        return dictionary_VR(tag) == "SQ"
    except KeyError:
        return True


@dataclass(frozen=True)
class _Opened:
    kind: int
    tag: int
    length: int
    encoding: _Encoding


_CLOSED: Final = _Opened(-1, 0, 0, _IMPLICIT_LITTLE)
