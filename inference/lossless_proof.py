"""Whether a decoder read a JPEG Lossless frame right, by encoding again what it returned.

ITU-T T.81 H.2.1 reconstructs modulo 2^16, and some encoders write differences that need it. pylibjpeg-libjpeg clips
instead (its issue 90) and returns white for grey, in silence. What was clipped is 0 or the largest value, so these are
looked up in the codestream: the first sample that was clipped stands there as another difference than the one that
leads to it, and whatever comes before it is right. And the whole must be as long as the frame: decoders make up what a
frame that is cut short does not hold.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.int64]
Differences = NDArray[np.int32]
ROWS_AT_ONCE = 256
MAX_SEGMENTS = 4096
RESTARTS = tuple(bytes([0xFF, marker]) for marker in range(0xD0, 0xD8))
FILL = b"\xff"  # may stand before a marker (T.81 B.1.1.2); in the data this value is followed by a zero
PADDING = b"\xff" * 8


class _Unproven(Exception):
    """The frame is not of the kind that can be encoded again here, or not what was decoded."""


@dataclass(frozen=True)
class _Scan:
    """predictor: the selection value, 1 to 7. restart_rows: 0 for none. sizes, codes: of the categories 0 to 16."""

    predictor: int
    restart_rows: int
    sizes: Values
    codes: Values
    data: bytes


def is_proven(frame: bytes, samples: NDArray[np.integer[Any]], precision: int) -> bool:
    """samples: (rows, columns), as decoded, in the low `precision` bits."""
    values = samples & ((1 << precision) - 1)
    try:
        scan = _parsed(frame, values.shape[1])
        step = scan.restart_rows or len(values)
        strips = [values[start : start + step] for start in range(0, len(values), step)]
        pieces = list(_pieces(scan))
        if len(pieces) != len(strips):
            return False
        return all(_agrees(piece, strip, precision, scan) for piece, strip in zip(pieces, strips, strict=True))
    except (_Unproven, struct.error, IndexError):
        return False


def _pieces(scan: _Scan) -> Iterator[bytes]:
    """The entropy-coded segments between restarts, without the stuffed zeros. A marker is never inside of them."""
    data = scan.data
    if scan.restart_rows:
        for marker in RESTARTS:
            data = data.replace(marker, RESTARTS[0])
    for piece in data.split(RESTARTS[0]) if scan.restart_rows else [data]:
        yield piece.rstrip(FILL).replace(b"\xff\x00", b"\xff")


def _agrees(piece: bytes, values: NDArray[np.integer[Any]], precision: int, scan: _Scan) -> bool:
    """values: (rows, columns) that begin with the start value of a prediction."""
    bits = np.frombuffer(piece + PADDING, np.uint8)
    lengths_of = np.where(scan.sizes > 0, scan.sizes + EXTRA, NEVER)[CATEGORIES]
    at, above = 0, None
    for start in range(0, len(values), ROWS_AT_ONCE):
        some = values[start : start + ROWS_AT_ONCE].astype(np.int32)
        differences = _differences(some, above, precision, scan.predictor)
        lengths = lengths_of[np.abs(differences)]
        ends = at + np.cumsum(lengths)
        if ends[-1] > 8 * len(piece):
            return False
        extreme = np.flatnonzero((some == 0) | (some == (1 << precision) - 1))
        found = _read(bits, (ends - lengths)[extreme], lengths[extreme])
        if not np.array_equal(found, _coded(differences[extreme], scan)):
            return False
        at, above = int(ends[-1]), some[-1]
    return 8 * len(piece) - at < 8


def _coded(differences: Differences, scan: _Scan) -> Values:
    """The code of each difference's category, then the bits that tell the category's numbers apart (T.81 H.1.2.2)."""
    categories = CATEGORIES[np.abs(differences)]
    extra = EXTRA[categories]
    low = np.where(differences < 0, differences + (1 << extra) - 1, differences) & ((1 << extra) - 1)
    return np.asarray((scan.codes[categories] << extra) | low)


def _read(bits: NDArray[np.uint8], at: Values, lengths: Values) -> Values:
    """For each place, that many bits (at most 32) of the stream, whose bytes are `bits`."""
    byte = at >> 3
    window = np.zeros(len(at), np.int64)
    for i in range(5):
        window = (window << 8) | bits[byte + i]
    return np.asarray((window >> (40 - (at & 7) - lengths)) & ((1 << lengths) - 1))


def _differences(values: Differences, above: Differences | None, precision: int, predictor: int) -> Differences:
    """(rows * columns,) in -32767..32768, modulo 2^16 (T.81 H.1.2.1). above: the row before; None: there is none."""
    rows = values if above is None else np.vstack([above, values])
    predicted = np.empty_like(rows)
    predicted[0, 0], predicted[0, 1:] = 1 << precision - 1, rows[0, :-1]
    predicted[1:, 0] = rows[:-1, 0]
    a, b, c = rows[1:, :-1], rows[:-1, 1:], rows[:-1, :-1]
    predicted[1:, 1:] = _predicted(a, b, c, predictor)
    own = (rows - predicted)[len(rows) - len(values) :]
    return np.asarray(((own.ravel() + 32767) & 0xFFFF) - 32767)


def _predicted(a: Differences, b: Differences, c: Differences, predictor: int) -> Differences:
    """T.81 table H.1. a: left, b: above, c: above left."""
    match predictor:
        case 1:
            return a
        case 2:
            return b
        case 3:
            return c
        case 4:
            return a + b - c
        case 5:
            return a + (b - c >> 1)
        case 6:
            return b + (a - c >> 1)
        case 7:
            return a + b >> 1
    raise _Unproven


def _categories() -> Values:
    """By the magnitude of a difference, 0 to 32768: how many bits it has."""
    return np.ceil(np.log2(np.arange(32769) + 1)).astype(np.int64)


CATEGORIES = _categories()
EXTRA = np.array([*range(16), 0], np.int64)  # bits behind the code, by category: 32768 needs none
NEVER = 1 << 40  # longer than any frame


def _parsed(frame: bytes, columns: int) -> _Scan:
    """One scan of one component without point transform. Raises _Unproven."""
    tables: dict[int, tuple[Values, Values]] = {}
    at, interval = 2, 0
    for _ in range(MAX_SEGMENTS):
        if frame[at] != 0xFF:
            raise _Unproven
        marker = frame[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        (length,) = struct.unpack_from(">H", frame, at + 2)
        body = frame[at + 4 : at + 2 + length]
        at += 2 + length
        if marker == 0xC4:
            tables |= _tables(body)
        elif marker == 0xDD:
            (interval,) = struct.unpack_from(">H", body)
        elif marker == 0xDA:
            components, _, selector, predictor, _, transform = struct.unpack_from(">6B", body)
            end = frame.rfind(b"\xff\xd9")
            if components != 1 or transform & 0x0F or interval % columns or selector >> 4 not in tables or end < at:
                raise _Unproven
            return _Scan(predictor, interval // columns, *tables[selector >> 4], frame[at:end])
    raise _Unproven


def _tables(body: bytes) -> dict[int, tuple[Values, Values]]:
    """Sizes and codes by category of each table of a DHT segment (T.81 annex C). Size 0: no such category."""
    found = {}
    while body:
        counts, names = body[1:17], body[17 : 17 + sum(body[1:17])]
        sizes, codes = np.zeros(17, np.int64), np.zeros(17, np.int64)
        code, named = 0, iter(names)
        for size, count in enumerate(counts, start=1):
            for _ in range(count):
                category = next(named, 17)
                if category > 16:
                    raise _Unproven
                sizes[category], codes[category] = size, code
                code += 1
            code <<= 1
        found[body[0] & 0x0F] = (sizes, codes)
        body = body[17 + len(names) :]
    return found
