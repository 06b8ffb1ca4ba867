"""Whose an instance is: two patients never look like one, and one patient in two spellings is not held."""

import hashlib

import pytest

from ledger.standing import same_patient
from scp.admission.patient import patient_digest
from scp.admission.structure import (
    PATIENT_BIRTH_DATE,
    PATIENT_ID,
    PATIENT_NAME,
    SPECIFIC_CHARACTER_SET,
    WANTED_MAX_BYTES,
    walk,
)
from tests.support.encoded import data_set, element


def keyed(*identity: str) -> str:
    return hashlib.sha256("\0".join(identity).encode()).hexdigest()


def of(number: bytes = b"", name: bytes = b"", born: bytes = b"", charset: bytes = b"") -> str:
    values = {PATIENT_ID: number, PATIENT_NAME: name, PATIENT_BIRTH_DATE: born, SPECIFIC_CHARACTER_SET: charset}
    return patient_digest({tag: value for tag, value in values.items() if value}, keyed)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (of(b"17 "), of(b"17")),
        (of(b" 17\0"), of(b"17")),
        (of(b"17", b"DOE^JOHN"), of(b"17", b"DOE^JON")),  # a spelling corrected: the id decides
        (of(b"17", b"DOE^JOHN", b"19700101"), of(b"17")),
        (of(b"", b"DOE^JOHN^^^ ", b"19700101"), of(b"", b"Doe^John", b"1970.01.01")),
        (of(b"", b"DOE^JOHN", b"19700101"), of(b"17", b"DOE^JOHN", b"19700101")),
        (of(b"", b"DOE^JOHN"), of(b"17")),  # nothing to compare
        (of(), of(b"17")),
        (of(b"", b"M\xfcller^Uwe", charset=b"ISO_IR 100"), of(b"", b"M\xc3\xbcller^Uwe", charset=b"ISO_IR 192")),
        (of(b"", b"M\xfcller^Uwe"), of(b"", b"M\xfcller^Uwe", charset=b"ISO_IR 100")),  # undeclared umlauts
        (
            of(b"", b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3", charset=b"ISO_IR 13"),  # half-width katakana
            of(b"", "ヤマダ^タロウ".encode(), charset=b"ISO_IR 192"),
        ),
        (
            of(b"", b"\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", charset=b"\\ISO 2022 IR 87"),
            of(b"", "山田^太郎".encode(), charset=b"ISO_IR 192"),
        ),
    ],
)
def test_one_patient_in_two_spellings_is_one(one: str, other: str) -> None:
    assert same_patient(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (of(b"17"), of(b"18")),
        (of(b"17", b"DOE^JOHN", b"19700101"), of(b"18", b"DOE^JOHN", b"19700101")),
        (of(b"", b"DOE^JOHN", b"19700101"), of(b"", b"DOE^JANE", b"19700101")),
        (of(b"", b"DOE^JOHN", b"19700101"), of(b"", b"DOE^JOHN", b"19700102")),
        (of(b"", b"DOE^JOHN"), of(b"17", b"ROE^JANE")),
        (of(b"007"), of(b"7")),
        (of(b"", b"M\xfcller"), of(b"", b"M\xf6ller")),
    ],
)
def test_two_patients_are_two(one: str, other: str) -> None:
    assert not same_patient(one, other)


@pytest.mark.parametrize("charset", [b"NOBODY KNOWS", b"ISO_IR 192", b"\xff\xfe", b"\\\\\\"])
def test_a_name_that_cannot_be_decoded_is_still_told_from_others(charset: bytes) -> None:
    assert of(b"", b"\xff\xfe\x80", charset=charset)
    assert not same_patient(of(b"", b"\xff\xfe\x80", charset=charset), of(b"", b"\xff\xfe\x81", charset=charset))


def test_a_header_that_says_nothing_gives_nothing() -> None:
    assert of() == of(b"  ", b"^^^^ ", b"19700101") == ""


def test_an_overlong_name_is_no_reason_to_refuse_an_image() -> None:
    long = element(PATIENT_NAME, "PN", b"A" * 5000)
    values = walk(data_set(tail=long), "1.2.840.10008.1.2.1")
    assert len(values[PATIENT_NAME]) == WANTED_MAX_BYTES
