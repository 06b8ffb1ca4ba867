"""Which key objects reject what, and that a hostile one rejects nothing."""

from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from scp.admission.rejection import MAX_REFERENCES, Rejection, read_rejection
from scp.errors import StructureError
from tests.support.dx import write
from tests.support.iocm import rejection_note

STUDY = "1.2.3"


def stored(folder: Path, note: Dataset) -> Path:
    return write(note, folder / "note.dcm")


@pytest.mark.parametrize("code", ["113001", "113037", "113038", "113039"])
def test_the_four_titles_of_a_rejection_note_are_known(tmp_path: Path, code: str) -> None:
    note = rejection_note(STUDY, code, ["1.2.3.1", "1.2.3.2", "1.2.3.1"])
    assert read_rejection(stored(tmp_path, note), STUDY) == Rejection(code, ("1.2.3.1", "1.2.3.2"))


@pytest.mark.parametrize(("code", "scheme"), [("113000", "DCM"), ("113001", "99LOCAL"), ("", "DCM")])
def test_another_title_rejects_nothing(tmp_path: Path, code: str, scheme: str) -> None:
    note = rejection_note(STUDY, code, ["1.2.3.1"], scheme=scheme)
    assert read_rejection(stored(tmp_path, note), STUDY) is None


def test_a_note_speaks_for_its_own_study_only(tmp_path: Path) -> None:
    note = rejection_note(STUDY, "113001", ["1.2.3.1"])
    other = rejection_note("9.9.9", "113001", ["9.9.9.1"])
    note.CurrentRequestedProcedureEvidenceSequence.extend(other.CurrentRequestedProcedureEvidenceSequence)
    assert read_rejection(stored(tmp_path, note), STUDY) == Rejection("113001", ("1.2.3.1",))
    with pytest.raises(StructureError):
        read_rejection(stored(tmp_path, other), STUDY)


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_a_malformed_note_raises_and_quotes_nothing(tmp_path: Path) -> None:
    empty = rejection_note(STUDY, "113001", [])
    dirty = rejection_note(STUDY, "113001", ["1.2.3.1", "DOE^JOHN"])
    endless = rejection_note(STUDY, "113001", [f"1.2.3.{n}" for n in range(MAX_REFERENCES + 1)])
    for note in (empty, dirty, endless):
        with pytest.raises(StructureError) as caught:
            read_rejection(stored(tmp_path, note), STUDY)
        assert "DOE" not in str(caught.value)
