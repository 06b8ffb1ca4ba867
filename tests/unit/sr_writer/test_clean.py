"""What names somebody stays apart from every other name when it is cleaned."""

from io import BytesIO
from itertools import combinations
from pathlib import Path

import pytest

from sr_writer.clean import visible
from sr_writer.source import SourceHeader, read_header, read_identity
from tests.support.dx import make_dx

DIRTY = (
    "1234",
    "12\t34",
    "12\n34",
    "12\r\n34",
    "1234\t",
    "12\x0034",
    "12\x7f34",
    "12\x9634",
    "12\x9734",
    "\x1b1234",
    "\x001234",
)


def header_of(folder: Path, **values: str) -> SourceHeader:
    ds = make_dx(SpecificCharacterSet="ISO_IR 192", **values)
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    path = folder / "source.dcm"
    path.write_bytes(buffer.getvalue())
    assert read_identity(path).patient[1] == read_header(path, "1.2.3").patient_and_study.PatientID
    return read_header(path, "1.2.3")


def test_no_two_ids_become_one() -> None:
    for one, other in combinations(DIRTY, 2):
        assert visible(one) != visible(other), (one, other)
    assert [visible(text) for text in (" 12\t34 ", "1234\0", "Ä-1")] == ["12␉34", "1234", "Ä-1"]


def test_an_id_shows_its_control_characters_in_the_result(tmp_path: Path) -> None:
    said = header_of(tmp_path, PatientID=" 12\t34 ", IssuerOfPatientID="A\x01B").patient_and_study
    assert (said.PatientID, said.IssuerOfPatientID) == ("12␉34", "A␁B")


@pytest.mark.parametrize(("value", "said"), [("12\t34", ""), ("1234\t", "1234"), (" 1234 ", "1234")])
def test_a_number_that_is_broken_within_is_better_not_said(tmp_path: Path, value: str, said: str) -> None:
    header = header_of(tmp_path, AccessionNumber=value, StudyID=value)
    assert (header.patient_and_study.AccessionNumber, header.patient_and_study.StudyID) == (said, said)
