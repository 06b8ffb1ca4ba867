"""The walker: what is whole is accepted, what is not is refused with the tag where it went wrong."""

import random
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydicom.filereader import _read_file_meta_info, read_preamble

from scp.admission import structure
from scp.admission.structure import (
    EXPLICIT_BIG,
    IMPLICIT_LITTLE,
    ITEM,
    ITEM_END,
    MODALITY,
    PATIENT_ID,
    PATIENT_NAME,
    PIXEL_DATA,
    SEQUENCE_END,
    SOP_INSTANCE_UID,
    UNDEFINED,
    Buffer,
    Limits,
    inflate,
    text,
    walk,
)
from scp.errors import StructureError
from tests.support.encoded import data_set, element, raw_header
from tests.support.realdata import data_dir, need_data

EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
J2K = "1.2.840.10008.1.2.4.90"
PRIVATE_SQ = 0x00091001
CODE_SEQUENCE = 0x00082218

ENCODINGS = [(EXPLICIT_LITTLE, True, False), (IMPLICIT_LITTLE, False, False), (EXPLICIT_BIG, True, True)]


def item(content: bytes, undefined: bool = False, big: bool = False) -> bytes:
    head = raw_header(ITEM, "", UNDEFINED if undefined else len(content), big=big)
    return head + content + (raw_header(ITEM_END, "", 0, big=big) if undefined else b"")


def sequence(tag: int, content: bytes, undefined: bool = False, explicit: bool = True, big: bool = False) -> bytes:
    head = raw_header(tag, "SQ", UNDEFINED if undefined else len(content), explicit, big)
    return head + content + (raw_header(SEQUENCE_END, "", 0, big=big) if undefined else b"")


def fragments(*values: bytes) -> bytes:
    body = raw_header(PIXEL_DATA, "OB", UNDEFINED) + b"".join(item(value) for value in values)
    return body + raw_header(SEQUENCE_END, "", 0)


def rich(explicit: bool = True, big: bool = False) -> bytes:
    """Nested sequences of defined and undefined length, an empty one, a private element, pixel data."""
    inner = element(0x00080100, "SH", "T-D3000", explicit, big)
    nested = sequence(CODE_SEQUENCE, item(inner, undefined=True, big=big), True, explicit, big)
    tail = (
        sequence(CODE_SEQUENCE, item(nested, big=big) + item(b"", big=big), False, explicit, big)
        + sequence(0x00082228, b"", False, explicit, big)
        + element(0x00290010, "LO", "PRIVATE", explicit, big)
        + element(PIXEL_DATA, "OW", bytes(64), explicit, big)
    )
    return data_set(explicit, big, tail)


def boundaries(data: bytes, syntax: str) -> list[int]:
    """Every length at which the walker, watched from outside, could stop: all ends of elements, items, delimiters."""
    return [cut for cut in range(len(data)) if _ends_with_whole_element(data[:cut], syntax)]


def _ends_with_whole_element(data: bytes, syntax: str) -> bool:
    try:
        walk(data, syntax)
    except StructureError:
        return False
    return True


@pytest.mark.parametrize(("syntax", "explicit", "big"), ENCODINGS)
def test_a_whole_data_set_is_walked_to_its_end(syntax: str, explicit: bool, big: bool) -> None:
    values = walk(rich(explicit, big), syntax)
    assert text(values, SOP_INSTANCE_UID) == "1.2.3.4"
    assert text(values, MODALITY) == "CT"


@pytest.mark.parametrize(("syntax", "explicit", "big"), ENCODINGS)
def test_a_cut_is_noticed_everywhere_but_between_top_level_elements(syntax: str, explicit: bool, big: bool) -> None:
    data = rich(explicit, big)
    whole = set(boundaries(data, syntax))
    tops = top_level_ends(data, explicit, big)
    assert whole == tops - {len(data)}
    for end in tops - {0, len(data)}:
        for cut in (end - 1, end + 1):
            with pytest.raises(StructureError):
                walk(data[:cut], syntax)


def top_level_ends(data: bytes, explicit: bool, big: bool) -> set[int]:
    """Computed by building the same data set in pieces: prefixes that are concatenations of whole elements."""
    ends, position = {0}, 0
    order = ">" if big else "<"
    while position < len(data):
        vr = data[position + 4 : position + 6].decode() if explicit else ""
        if explicit and vr not in ("OW", "SQ"):
            (length,) = struct.unpack_from(order + "H", data, position + 6)
            position += 8 + length
        else:
            start = position + (12 if explicit else 8)
            (length,) = struct.unpack_from(order + "L", data, start - 4)
            position = start + length
        ends.add(position)
    return ends


def test_a_cut_inside_undefined_lengths_is_noticed_at_every_byte() -> None:
    content = item(element(0x00080100, "SH", "X1"), undefined=True)
    open_ended = data_set(tail=sequence(CODE_SEQUENCE, content + content, undefined=True))
    assert walk(open_ended, EXPLICIT_LITTLE)
    for cut in range(len(data_set()) + 1, len(open_ended)):
        with pytest.raises(StructureError):
            walk(open_ended[:cut], EXPLICIT_LITTLE)


def test_trailing_bytes_are_noticed() -> None:
    with pytest.raises(StructureError):
        walk(rich() + b"\0", EXPLICIT_LITTLE)
    with pytest.raises(StructureError):
        walk(rich() + bytes(8), EXPLICIT_LITTLE)


def test_an_error_names_the_tag_and_never_the_value() -> None:
    secret = b"Doe^Jane"
    data = data_set(tail=raw_header(0x00100010, "PN", 500) + secret)
    with pytest.raises(StructureError) as caught:
        walk(data, EXPLICIT_LITTLE)
    assert caught.value.tag == 0x00100010
    assert "(0010,0010)" in str(caught.value)
    assert "Doe" not in str(caught.value)


def test_pixel_data_longer_than_the_file_is_refused() -> None:
    data = data_set(tail=raw_header(PIXEL_DATA, "OW", 0xFFFFFFF0) + bytes(64))
    with pytest.raises(StructureError) as caught:
        walk(data, EXPLICIT_LITTLE)
    assert caught.value.tag == PIXEL_DATA


def test_encapsulated_pixel_data_must_have_its_delimiter() -> None:
    good = data_set(tail=fragments(b"", b"abcd", b"ef"))
    assert walk(good, J2K)
    for cut in range(len(good) - 8, len(good)):
        with pytest.raises(StructureError):
            walk(good[:cut], J2K)
    too_long = data_set(tail=raw_header(PIXEL_DATA, "OB", UNDEFINED) + raw_header(ITEM, "", 100) + b"abcd")
    with pytest.raises(StructureError, match="fragment"):
        walk(too_long, J2K)


@pytest.mark.parametrize(
    "tail",
    [
        element(0xFFFCFFFC, "OB", bytes(128)),  # data set trailing padding
        raw_header(0x00204000, "LT", 3) + b"odd",  # odd length
        raw_header(0x00280000, "UL", 4) + bytes(4),  # group length
        raw_header(PRIVATE_SQ, "UN", UNDEFINED)  # UN of undefined length holds implicit VR
        + item(element(0x00080100, "", "X1", explicit=False))
        + raw_header(SEQUENCE_END, "", 0),
        sequence(CODE_SEQUENCE, item(b"", undefined=True), undefined=True),
        sequence(CODE_SEQUENCE, raw_header(SEQUENCE_END, "", 0)),  # a delimiter although the length is defined
    ],
    ids=["padding", "odd", "group-length", "un-undefined", "empty-item", "stray-end"],
)
def test_legal_and_harmless_oddities_pass(tail: bytes) -> None:
    assert walk(data_set(tail=tail), EXPLICIT_LITTLE)


@pytest.mark.parametrize(
    ("tail", "tag"),
    [
        (raw_header(0x00181012, "\0\0", 4) + bytes(4), 0x00181012),
        (raw_header(ITEM, "", 0), ITEM),
        (raw_header(SEQUENCE_END, "", 0), SEQUENCE_END),
        (raw_header(ITEM_END, "", 0), ITEM_END),
        (raw_header(0x00189445, "UT", UNDEFINED) + bytes(8), 0x00189445),
        (sequence(CODE_SEQUENCE, element(0x00080100, "SH", "X1")), CODE_SEQUENCE),
        (element(SOP_INSTANCE_UID, "UI", "1.2.3.5"), SOP_INSTANCE_UID),
        (element(0x00020010, "UI", EXPLICIT_LITTLE), 0x00020010),
        (element(0x00000100, "US", b"\1\0"), 0x00000100),
        (element(0x00081090, "LO", "x" * 2000), 0x00081090),
        (raw_header(0x00181012, "ZZ", 0) + struct.pack("<L", 4) + bytes(4), 0x00181012),  # 32 bits of length, or 16
        (element(PIXEL_DATA, "OW", bytes(8)) + element(0x00100020, "LO", "1"), 0x00100020),
        (element(PIXEL_DATA, "OW", bytes(8)) * 2, PIXEL_DATA),
        (
            raw_header(CODE_SEQUENCE, "SQ", UNDEFINED)
            + raw_header(ITEM, "", UNDEFINED)
            + raw_header(ITEM_END, "", int.from_bytes(b"OB\0\0", "little"))
            + raw_header(SEQUENCE_END, "", 0),
            ITEM_END,
        ),
    ],
    ids=[
        "vr",
        "item",
        "sequence-end",
        "item-end",
        "undefined-ut",
        "no-item",
        "twice",
        "meta",
        "command",
        "long",
        "unknown-vr",
        "behind-the-pixels",
        "pixels-twice",
        "delimiter-like-an-element",
    ],
)
def test_what_two_readers_could_read_differently_is_refused(tail: bytes, tag: int) -> None:
    changes: dict[str, str | None] = {"ManufacturerModelName": None} if tag == 0x00081090 else {}
    with pytest.raises(StructureError) as caught:
        walk(data_set(tail=tail, **changes), EXPLICIT_LITTLE)
    assert caught.value.tag == tag


@pytest.mark.parametrize("vr", ["OB", "US", "AT", "FD", "IS", "DS", "SQ"])
@pytest.mark.parametrize("tag", [PATIENT_ID, PATIENT_NAME, SOP_INSTANCE_UID])
def test_an_identity_is_text_to_every_reader_or_refused(vr: str, tag: int) -> None:
    kept = {PATIENT_ID: "PatientID", PATIENT_NAME: "PatientName", SOP_INSTANCE_UID: "SOPInstanceUID"}
    value = item(b"") if vr == "SQ" else b"12345678"
    without = data_set(**{kept[tag]: None})
    with pytest.raises(StructureError, match="not of text") as caught:
        walk(without + element(tag, vr, value), EXPLICIT_LITTLE)
    assert caught.value.tag == tag
    for spoken in ("LO", "UN"):  # another text VR than the dictionary's, and one that everybody looks up there
        assert walk(without + element(tag, spoken, b"12345678"), EXPLICIT_LITTLE)[tag] == b"12345678"


def test_implicit_vr_that_begins_like_explicit_vr_is_refused() -> None:
    """pydicom guesses by the first element, so it would see the patient inside that element's value."""
    looks_explicit = int.from_bytes(b"UI\0\0", "little")
    first = raw_header(0x00080005, "", looks_explicit, explicit=False) + bytes(looks_explicit)
    with pytest.raises(StructureError, match="explicit"):
        walk(first + data_set(explicit=False), IMPLICIT_LITTLE)
    behind = element(0x00080001, "", b"ab", explicit=False) + first
    assert walk(behind + data_set(explicit=False), IMPLICIT_LITTLE)
    unknown = raw_header(PRIVATE_SQ, "UN", UNDEFINED) + item(first) + raw_header(SEQUENCE_END, "", 0)
    with pytest.raises(StructureError, match="explicit"):
        walk(data_set(tail=unknown), EXPLICIT_LITTLE)


@pytest.mark.parametrize("tag", [0xFEFF0DE0, 0x02000010, 0x00000002])
def test_big_endian_that_begins_like_something_else_is_refused(tag: int) -> None:
    """Behind a file header, pydicom reads the first group in little endian before it knows better."""
    first = element(tag, "OB", bytes(4), big=True)
    with pytest.raises(StructureError, match="begin"):
        walk(first + data_set(big=True), EXPLICIT_BIG)


def test_only_a_sequence_may_have_an_undefined_length_in_implicit_vr() -> None:
    def tail(tag: int) -> bytes:
        return raw_header(tag, "", UNDEFINED, explicit=False) + item(b"") + raw_header(SEQUENCE_END, "", 0)

    for tag in (CODE_SEQUENCE, PRIVATE_SQ, PIXEL_DATA):
        assert walk(data_set(explicit=False, tail=tail(tag)), IMPLICIT_LITTLE)
    with pytest.raises(StructureError, match="undefined"):
        walk(data_set(explicit=False, tail=tail(0x00104000)), IMPLICIT_LITTLE)


@pytest.mark.parametrize("undefined", [True, False])
@pytest.mark.parametrize(("syntax", "explicit", "big"), ENCODINGS)
def test_nesting_is_limited_and_never_recursive(undefined: bool, syntax: str, explicit: bool, big: bool) -> None:
    def nested(depth: int) -> bytes:
        content = b""
        for _ in range(depth):
            content = sequence(CODE_SEQUENCE, item(content, undefined, big), undefined, explicit, big)
        return content

    assert walk(nested(32), syntax) == {}
    for depth in (33, 3000):
        with pytest.raises(StructureError, match="nested"):
            walk(nested(depth), syntax)


def test_the_number_of_elements_is_limited_fragments_included() -> None:
    many = data_set(tail=element(0x00091010, "UN", b"") * 100)
    assert walk(many, EXPLICIT_LITTLE, Limits(elements=110))
    with pytest.raises(StructureError, match="too many"):
        walk(many, EXPLICIT_LITTLE, Limits(elements=109))
    with pytest.raises(StructureError, match="too many"):
        walk(data_set(tail=fragments(*[b""] * 100)), J2K, Limits(elements=50))
    items = data_set(tail=sequence(CODE_SEQUENCE, item(b"") * 100))
    with pytest.raises(StructureError, match="too many"):
        walk(items, EXPLICIT_LITTLE, Limits(elements=50))


def deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def test_deflated_data_is_walked_inside() -> None:
    packed = deflate(rich())
    assert text(walk(packed, DEFLATED), SOP_INSTANCE_UID) == "1.2.3.4"
    assert walk(packed + b"\0", DEFLATED)  # padded to even length
    for broken in (packed[:-3], packed + b"xy", b"\xff" * 20, deflate(rich()[:-1])):
        with pytest.raises(StructureError):
            walk(broken, DEFLATED)


def test_a_deflate_bomb_is_stopped_early() -> None:
    bomb = deflate(bytes(80 * 1024 * 1024))
    with pytest.raises(StructureError, match="too large"):
        inflate(bomb)


def test_one_deflated_data_set_at_a_time_is_held_inflated(monkeypatch: pytest.MonkeyPatch) -> None:
    packed, inside, most = deflate(rich()), [0], [0]

    def counted(data: Buffer) -> bytes:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        waited.wait(0.2)  # the others' chance to come in
        inside[0] -= 1
        return inflate(data)

    waited = threading.Event()
    monkeypatch.setattr(structure, "inflate", counted)
    with ThreadPoolExecutor(4) as many:
        assert len(list(many.map(lambda _: walk(packed, DEFLATED), range(4)))) == 4
    assert most == [1]


def test_random_damage_is_never_anything_but_a_structure_error() -> None:
    rng = random.Random(20261120)
    for syntax, explicit, big in ENCODINGS:
        whole = rich(explicit, big)
        for _ in range(1500):
            data = bytearray(whole)
            for _ in range(rng.randint(1, 4)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            try:
                walk(bytes(data), syntax)
            except StructureError:
                continue


BROKEN = {"emri_small_jpeg_2k_lossless_too_short.dcm"}


def test_every_real_file_passes_but_the_truncated_one() -> None:
    refused = set()
    for path in sorted((data_dir() / "dicom").rglob("*")):
        if not path.is_file() or path.read_bytes()[128:132] != b"DICM":
            continue
        try:
            walk(*_data_set(path))
        except StructureError:
            refused.add(path.name)
    assert refused == BROKEN


def test_a_real_file_cut_anywhere_in_its_last_element_is_refused() -> None:
    path = min(need_data("dicom/one_ct_in_15_transfer_syntaxes").rglob("*JPEG2000*"))
    data, syntax = _data_set(path)
    assert walk(data, syntax)
    for cut in (1, 7, 8, 9, 1000, len(data) // 4):
        with pytest.raises(StructureError):
            walk(data[: len(data) - cut], syntax)


def _data_set(path: Path) -> tuple[bytes, str]:
    with path.open("rb") as file:
        read_preamble(file, False)
        meta = _read_file_meta_info(file)
        return file.read(), str(meta.get("TransferSyntaxUID", EXPLICIT_LITTLE))
