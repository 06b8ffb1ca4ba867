"""The corpus under names that say what each input is. `python -m tests.fuzz --write-corpus` writes it; inputs that a
run found by itself are added to the folders by hand and stay."""

import random
import struct
from typing import Final

from tests.fuzz.children_seeds import child_answer, stored_file
from tests.fuzz.data_sets import (
    DEFLATED,
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    ITEM,
    ITEM_END,
    JPEG_2000,
    PIXEL_DATA,
    SEQUENCE_END,
    SYNTAXES,
    UNDEFINED,
    deflate,
    make,
)
from tests.fuzz.pdus import PDU_MAX_BYTES, WHEN, echo, make_request, store, together
from tests.support.encoded import CT, data_set, element, raw_header
from tests.support.rawscu import VERIFICATION, associate_rq, command, item, p_data, ui, us

Seeds = dict[str, bytes]
SEQUENCE: Final = 0x00082218
END: Final = raw_header(SEQUENCE_END, "", 0)


def _for(syntax: str, data: bytes) -> bytes:
    return bytes([SYNTAXES.index(syntax)]) + data


def _nested(depth: int) -> bytes:
    content = b""
    for _ in range(depth):
        content = raw_header(SEQUENCE, "SQ", UNDEFINED) + raw_header(ITEM, "", UNDEFINED) + content
        content += raw_header(ITEM_END, "", 0) + END
    return content


def walker() -> Seeds:
    whole = data_set(**WHEN)
    delimiter = raw_header(ITEM_END, "", int.from_bytes(b"OB\0\0", "little"))
    patient = element(0x00100020, "LO", "1")
    hidden = b"LO\0\0" + patient  # its length and these make an empty element, for who reads 16 bits of length
    with_tail = {
        "pixels": element(PIXEL_DATA, "OW", bytes(32)),
        "pixels-twice": element(PIXEL_DATA, "OW", bytes(8)) * 2,
        "patient-behind-the-pixels": element(PIXEL_DATA, "OW", b"") + patient,
        "pixel-length-past-the-end": raw_header(PIXEL_DATA, "OW", 0xFFFFFFF0) + bytes(64),
        "patient-inside-an-unknown-vr": raw_header(0x00091012, "ZZ", 0) + struct.pack("<L", len(hidden)) + hidden,
        "nested-32": _nested(32),
        "nested-33": _nested(33),
        "delimiter-that-looks-like-ob": raw_header(SEQUENCE, "SQ", UNDEFINED)
        + raw_header(ITEM, "", UNDEFINED)
        + delimiter
        + END
        + patient,
        "un-of-undefined-length": raw_header(0x00091010, "UN", UNDEFINED)
        + raw_header(ITEM, "", 10)
        + element(0x00080100, "", "X1", explicit=False)
        + END,
        "item-longer-than-its-sequence": raw_header(SEQUENCE, "SQ", 8) + raw_header(ITEM, "", 4) + bytes(4),
        "delimiter-missing": raw_header(SEQUENCE, "SQ", UNDEFINED) + raw_header(ITEM, "", 0),
        "trailing-padding": element(0xFFFCFFFC, "OB", bytes(8)),
        "uid-twice": element(0x00080018, "UI", "1.2.3.5"),
        "cut-in-a-header": b"\x28\0\x10\0",
    }
    big = data_set(big=True, **WHEN)
    seeds = {name: _for(EXPLICIT_LITTLE, whole + tail) for name, tail in with_tail.items()}
    pieces = raw_header(PIXEL_DATA, "OB", UNDEFINED) + raw_header(ITEM, "", 0) + raw_header(ITEM, "", 4) + bytes(4)
    return seeds | {
        "empty": b"",
        "nothing-but-a-syntax": b"\0",
        "encapsulated": _for(JPEG_2000, whole + pieces + END),
        "encapsulated-without-its-end": _for(JPEG_2000, whole + pieces),
        "implicit": _for(IMPLICIT_LITTLE, make(random.Random(4), IMPLICIT_LITTLE).data),
        "big-endian": _for(EXPLICIT_BIG, make(random.Random(5), EXPLICIT_BIG).data),
        "big-endian-that-begins-like-an-item-end": _for(
            EXPLICIT_BIG, element(0xFEFF0DE0, "UI", element(0x00100020, "LO", "1", big=True), big=True) + big
        ),
        "big-endian-that-begins-like-a-file-header": _for(
            EXPLICIT_BIG, element(0x02000010, "UI", b"ab", big=True) + big
        ),
        "deflated": _for(DEFLATED, deflate(whole)),
        "deflated-and-cut-off": _for(DEFLATED, deflate(whole)[:-3]),
        "deflated-bomb-of-a-megabyte": _for(DEFLATED, deflate(bytes(1 << 20))),
    }


def command_set() -> Seeds:
    rq = {0x2: ui(CT), 0x100: us(1), 0x110: us(1), 0x700: us(0), 0x800: us(1), 0x1000: ui("1.2.3.4")}
    whole = command(rq)
    return {
        "empty": b"",
        "c-store": whole,
        "c-echo": command({0x2: ui(VERIFICATION), 0x100: us(0x30), 0x110: us(1), 0x800: us(0x101)}),
        "n-event-report": command({0x2: ui("1.2.840.10008.1.20.1"), 0x100: us(0x100), 0x110: us(1), 0x1002: us(1)}),
        "n-action": command({0x3: ui("1.2.840.10008.1.20.1"), 0x100: us(0x130), 0x110: us(1), 0x1008: us(1)}),
        "cut-in-a-header": whole[:17],
        "cut-in-a-value": whole[:-1],
        "length-past-the-end": whole[:12] + struct.pack("<HHL", 0, 2, 0xFFFFFFFF),
        "group-8": whole + struct.pack("<HHL", 8, 0x18, 0),
        "message-id-of-four-bytes": command({**rq, 0x110: bytes(4)}),
        "no-message-id": command({0x100: us(1)}),
        "uid-not-ascii": command({**rq, 0x1000: b"1.2.\xff\0../../x"}),
        "element-twice": whole + struct.pack("<HHLH", 0, 0x110, 2, 7),
    }


def pdu() -> Seeds:
    rng = random.Random(1)
    rq = command({0x2: ui(CT), 0x100: us(1), 0x110: us(1), 0x800: us(1), 0x1000: ui("1.2.3.4")})
    started = p_data(1, 3, rq)
    streams = {
        "empty": b"",
        "echo": echo(rng),
        "store": store(rng),
        "store-in-fragments-of-a-byte": started + b"".join(p_data(1, 2 * (n == 9), b"x") for n in range(10)),
        "two-messages-in-one-pdu": together(echo(rng), echo(rng)),
        "half-a-header": b"\4\0\0",
        "half-a-pdu": started[:-5],
        "length-ffffffff": struct.pack(">BxL", 4, 0xFFFFFFFF) + bytes(32),
        "one-byte-longer-than-agreed": struct.pack(">BxL", 4, PDU_MAX_BYTES + 1) + bytes(32),
        "pdu-without-a-pdv": struct.pack(">BxL", 4, 0),
        "pdv-of-length-0": struct.pack(">BxLLBB", 4, 6, 0, 1, 3),
        "pdv-of-length-ffffffff": struct.pack(">BxLLBB", 4, 6, 0xFFFFFFFF, 1, 3),
        "pdv-longer-than-its-pdu": struct.pack(">BxLLBB", 4, 6, 3, 1, 3),
        "empty-fragments-without-end": p_data(1, 1, b"") * 4,
        "data-before-a-command": p_data(1, 2, b"data"),
        "command-inside-a-data-set": started + p_data(1, 0, b"data") + started,
        "other-context-inside-a-data-set": started + p_data(3, 2, b"data"),
        "context-never-accepted": p_data(99, 3, rq),
        "unknown-type": struct.pack(">BxL", 9, 0),
        "second-request": make_request(random.Random(2)),
        "release": struct.pack(">BxLL", 5, 4, 0),
        "release-of-five-bytes": struct.pack(">BxLLx", 5, 5, 0),
        "abort": struct.pack(">BxLL", 7, 4, 0),
    }
    return {name: b"\6" + stream for name, stream in streams.items()}


def associate_request() -> Seeds:
    contexts = [(CT, ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")), (VERIFICATION, ("1.2.840.10008.1.2",))]
    syntax = item(0x40, b"1.2.840.10008.1.2")
    abstract = item(0x30, CT.encode())
    fixed = associate_rq([])[6 : 6 + 68]
    application = item(0x10, b"1.2.840.10008.3.1.1.1")
    user = item(0x50, item(0x51, struct.pack(">L", 16_384)) + item(0x52, b"1.2.3.4"))

    def with_context(body: bytes) -> bytes:
        return fixed + application + item(0x20, body) + user

    return {
        "empty": b"",
        "whole": associate_rq(contexts)[6:],
        "everything-asked-for": associate_rq(contexts, extra_user_items=_user_items())[6:],
        "fixed-part-only": fixed,
        "cut-in-the-fixed-part": fixed[:40],
        "no-user-information": fixed + application + item(0x20, b"\1\0\0\0" + abstract + syntax),
        "no-contexts": fixed + application + user,
        "context-without-an-abstract-syntax": with_context(b"\1\0\0\0" + syntax),
        "context-without-a-transfer-syntax": with_context(b"\1\0\0\0" + abstract),
        "context-id-even": with_context(b"\2\0\0\0" + abstract + syntax),
        "context-id-0": with_context(b"\0\0\0\0" + abstract + syntax),
        "context-twice": fixed + application + item(0x20, b"\1\0\0\0" + abstract + syntax) * 2 + user,
        "item-longer-than-the-pdu": fixed + struct.pack(">BxH", 0x10, 0xFFFF) + b"1.2",
        "sub-item-longer-than-its-item": with_context(b"\1\0\0\0" + struct.pack(">BxH", 0x30, 0xFFFF)),
        "unknown-item": fixed + application + item(0x99, b"?") + user,
        "uid-not-ascii": with_context(b"\1\0\0\0" + item(0x30, b"1.2.\xff") + syntax),
        "uid-of-300-bytes": with_context(b"\1\0\0\0" + item(0x30, b"1." * 150) + syntax),
        "ae-title-of-control-characters": struct.pack(">HH", 1, 0) + bytes(range(32)) + fixed[36:] + application + user,
        "maximum-length-of-3": associate_rq(contexts, max_pdu_bytes=3)[6:],
    }


def _user_items() -> bytes:
    role = struct.pack(">H", len(CT)) + CT.encode()
    return b"".join(
        (
            item(0x53, struct.pack(">HH", 0, 0)),
            item(0x54, role + b"\1\1"),
            item(0x55, b"INVENTED_1"),
            item(0x56, role + b"\2\0\0\0\0\0"),
            item(0x58, b"\2\1\0\4user\0\4pass"),
        )
    )


SEEDS: Final = {
    "pdu": pdu,
    "associate_rq": associate_request,
    "command_set": command_set,
    "walker": walker,
    "stored_file": stored_file,
    "child_answer": child_answer,
}
