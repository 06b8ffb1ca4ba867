"""Until when certificates and revocation lists hold: the two times of X.509 that Python's ssl module does not tell."""

import re
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

_INTEGER, _SEQUENCE, _UTC_TIME, _GENERALIZED_TIME = 0x02, 0x30, 0x17, 0x18
_VERSION: Final = 0xA0
_BLOCK = "-----BEGIN {0}-----.*?-----END {0}-----"


def certificate_expiry(path: Path) -> datetime:
    """The end of validity of the first certificate in a PEM file: the node's own. Raises OSError, ValueError."""
    [body, *_] = _bodies(path, "CERTIFICATE")
    fields = [field for field in body if field[0] != _VERSION]
    _, _, _, (_, validity), *_ = fields  # serial number, algorithm, issuer, validity (RFC 5280 4.1)
    return _time(list(_elements(validity))[1])


def revocations_expiry(path: Path) -> datetime | None:
    """The earliest next update of the revocation lists in a PEM file; None where none names any. Raises OSError,
    ValueError."""
    ends = [_next_update(body) for body in _bodies(path, "X509 CRL")]
    return min((end for end in ends if end is not None), default=None)


Element = tuple[int, bytes]  # tag, content


def _next_update(body: list[Element]) -> datetime | None:
    fields = [field for field in body if field[0] != _INTEGER]
    _, _, _, following, *_ = (*fields, (0, b""))  # algorithm, issuer, this update, next update (RFC 5280 5.1)
    return _time(following) if following[0] in (_UTC_TIME, _GENERALIZED_TIME) else None


def _bodies(path: Path, label: str) -> list[list[Element]]:
    """The fields of what is signed, of each PEM block."""
    blocks = re.findall(_BLOCK.format(label), path.read_text(encoding="latin-1"), re.DOTALL)
    if not blocks:
        raise ValueError(f"no PEM block {label}")
    as_certificate = (block.replace(label, "CERTIFICATE") for block in blocks)
    signed = (ssl.PEM_cert_to_DER_cert(block) for block in as_certificate)
    return [list(_elements(next(_elements(next(_elements(der))[1]))[1])) for der in signed]


def _elements(der: bytes) -> Iterator[Element]:
    """The elements of an encoded SEQUENCE's content (X.690 8.1)."""
    at = 0
    while at < len(der):
        if at + 2 > len(der):
            raise ValueError("DER ends too early")
        tag, length, at = der[at], der[at + 1], at + 2
        if length & 0x80:
            width = length & 0x7F
            length, at = int.from_bytes(der[at : at + width], "big"), at + width
        if at + length > len(der):
            raise ValueError("DER ends too early")
        yield tag, der[at : at + length]
        at += length


def _time(element: Element) -> datetime:
    tag, text = element[0], element[1].decode("ascii")
    form = {_UTC_TIME: "%y%m%d%H%M%SZ", _GENERALIZED_TIME: "%Y%m%d%H%M%SZ"}.get(tag)
    if form is None:
        raise ValueError("no time where one must be")
    return datetime.strptime(text, form).replace(tzinfo=UTC)
