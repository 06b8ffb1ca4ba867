"""The corpus of the two targets in tests/fuzz/children.py, under names that say what each input is."""

import json
import random
from typing import Any, Final

from scp import part10
from sr_writer.whose import SAID
from tests.fuzz.children import DISPLAY_SIDE, FACTS, FRAME, RAW, SIDE, SYNTAXES, make_stored
from tests.fuzz.data_sets import DEFLATED, EXPLICIT_LITTLE
from tests.fuzz.pdus import WHEN
from tests.support.encoded import CT, data_set, element, raw_header

Seeds = dict[str, bytes]
LOOK, DECODE, DECODE_AND_SHOW, HEADER = range(4)
PICTURE: Final = bytes(4 * SIDE * SIDE)
SHOWN: Final = bytes(DISPLAY_SIDE**2)


def stored_file() -> Seeds:
    head = part10.header(CT, "1.2.3.4", EXPLICIT_LITTLE)
    pixels = element(0x7FE00010, "OW", FRAME)
    rows = raw_header(0x00280010, "US", 2).replace(b"US", b"U\0") + b"\4\0"
    made = {f"made-{number}": make_stored(random.Random(number)) for number in range(2 * len(SYNTAXES))}
    return made | {
        "whole": head + data_set(**WHEN, tail=pixels),
        "empty": b"",
        "header-only": head,
        "deflated-and-damaged": part10.header(CT, "1.2.3.4", DEFLATED) + b"\xff" * 40,
        "vr-of-a-zero": head + data_set(**WHEN, tail=rows + pixels),
        "meta-group-length-of-300-bytes": head[:132] + b"\2\0\0\0UL\x2c\1" + bytes(300) + head[144:],
        "no-preamble": head[132:],
    }


def child_answer() -> Seeds:
    picture = {"low": 0.0, "high": 1.0}
    decoded: dict[str, Any] = {"pictures": [picture] * 2, "display": None, "rows": 4, "columns": 4}
    decoded |= {"source_sha256": "0" * 64}
    shown = decoded | {"display": [DISPLAY_SIDE, DISPLAY_SIDE]}
    pictures = [PICTURE, PICTURE]
    nan = [{"low": float("nan"), "high": 1}] * 2
    return {
        "empty": b"",
        "look": _said(LOOK, {"facts": FACTS}),
        "look-age-without-end": _said(LOOK, {"facts": FACTS | {"age_years": float("inf")}}),
        "look-frames-of-400-digits": _said(LOOK, {"facts": FACTS | {"frames": 10**400}}),
        "look-lone-surrogate": _said(LOOK, {"facts": FACTS | {"series_texts": ["\ud800"]}}),
        "look-uid-of-words": _said(LOOK, {"facts": FACTS | {"study_instance_uid": "'; DROP TABLE"}}),
        "look-list": _said(LOOK, {"facts": list(FACTS)}),
        "decode": _said(DECODE, decoded, *pictures),
        "decode-and-show": _said(DECODE_AND_SHOW, shown, *pictures, SHOWN),
        "decode-shown-unasked": _said(DECODE, shown | {"display": [4, 4]}, *pictures, bytes(16)),
        "decode-shown-empty": _said(DECODE_AND_SHOW, shown | {"display": [0, 8]}, *pictures, b""),
        "decode-shown-too-long": _said(DECODE_AND_SHOW, shown | {"display": [1, 64]}, *pictures, SHOWN),
        "decode-shown-beyond-numbers": _said(DECODE_AND_SHOW, shown | {"display": [10**30, -1]}, *pictures, SHOWN),
        "decode-span-beyond-numbers": _said(
            DECODE, decoded | {"pictures": [{"low": 0, "high": 10**400}] * 2}, *pictures
        ),
        "decode-span-nan": _said(DECODE, decoded | {"pictures": nan}, *pictures),
        "decode-rows-without-end": _said(DECODE, decoded | {"rows": float("inf")}, *pictures),
        "decode-a-blob-too-many": _said(DECODE, decoded, *pictures, b"1"),
        "decode-pixels-nan": _said(DECODE, decoded, b"\xff" * len(PICTURE), PICTURE),
        "header": _said(HEADER, {"header": dict.fromkeys(SAID, "1960")}),
        "header-lone-surrogate": _said(HEADER, {"header": dict.fromkeys(SAID, "\udfff")}),
        "refused": _said(LOOK, {"error": ["unreadable", "The file cannot be read."]}),
        "refused-in-other-letters": _said(LOOK, {"error": ["отказ", "…"]}),
        "refused-and-tired": _said(LOOK, {"error": ["decode_limit", "Too much."], "tired": True}),
        "blobs-without-end": bytes([DECODE]) + b'{"pictures": [], "blobs": [Infinity]}\n',
        "blobs-of-nothing": bytes([DECODE]) + b'{"blobs": [' + b"0, " * 400 + b"0]}\n",
        "raw-size-of-4-gb": bytes([RAW]) + b"\xff\xff\xff\xff{}",
        "raw-cut": bytes([RAW]) + b"\x40\0\0\0{",
    }


def _said(kind: int, said: dict[str, Any], *blobs: bytes) -> bytes:
    text = json.dumps({**said, "blobs": [len(blob) for blob in blobs]}).encode()
    return bytes([kind]) + text + b"\n" + b"".join(blobs)
