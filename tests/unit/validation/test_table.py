"""A table with a fault is refused with its line; a good one is read as a person would."""

from pathlib import Path

import numpy as np
import pytest

from validation.table import TableError, age_group, age_years, read_table


def written(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "images.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_a_full_table_gives_truth_patients_ages_and_groups(tmp_path: Path):
    text = (
        "Image,Pneumonia,patient,age,sex,view,site,mask,ward\n"
        "a.png,1,p1,3,f,ap,North,m.png,7\n"
        "sub/b.dcm,0,p1,018M,male,PA,North,,7\n"
        "c.jpg,,p2,,,,,,\n"
    )
    table = read_table(written(tmp_path, text), ["pneumonia", "fracture"])
    assert table.images == (tmp_path / "a.png", tmp_path / "sub/b.dcm", tmp_path / "c.jpg")
    assert table.truth["pneumonia"][:2].tolist() == [1.0, 0.0]
    assert np.isnan(table.truth["pneumonia"][2])
    assert table.patients == ("p1", "p1", "p2")
    assert table.ages == (3.0, 1.5, None)
    assert table.traits == {
        "age": ("1 to 5", "1 to 5", "not stated"),
        "sex": ("F", "M", "not stated"),
        "view": ("AP", "PA", "not stated"),
        "site": ("North", "North", "not stated"),
    }
    assert table.masks == (tmp_path / "m.png", None, None)
    assert table.unused == ("ward",)


def test_label_alone_is_enough_for_a_package_that_finds_one_thing(tmp_path: Path):
    path = written(tmp_path, "image;label\r\na.png;1\r\nb.png;0\r\n", "utf-8-sig")
    table = read_table(path, ["fracture"])
    assert table.truth["fracture"].tolist() == [1.0, 0.0]
    assert not table.has_patients
    assert len(set(table.patients)) == 2
    with pytest.raises(TableError, match="no column is named like a finding"):
        read_table(path, ["fracture", "pneumonia"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image,label\na.png,2\n", "line 2: label is '2'; it must be 0, 1 or left empty"),
        ("image,label\na.png,1\n\nb.png\n", "line 4: 1 fields where the heading has 2"),
        ("image,label\na.png,1\nb.png,0\na.png,1\n", "line 4: the same image as in line 2"),
        ("image,label\n,1\n", "line 2: no image is named"),
        ("image,label,age\na.png,1,old\n", "line 2: age is 'old'"),
        ("image,label,age\na.png,1,200\n", "line 2: age is '200'"),
        ("file,label\na.png,1\n", "line 1: there is no column 'image'"),
        ("image,label,label\na.png,1,1\n", "line 1: the column 'label' stands there twice"),
        ("image,label\n", "there is no row below the heading"),
        ("", "there is no column 'image'"),
    ],
)
def test_a_fault_is_named_with_its_line(tmp_path: Path, text: str, said: str):
    with pytest.raises(TableError, match=said):
        read_table(written(tmp_path, text), ["pneumonia"])


def test_many_faults_are_counted_and_no_patient_is_quoted(tmp_path: Path):
    text = "image,label,patient\n" + "".join(f"{i}.png,maybe,Doe{i}\n" for i in range(30))
    with pytest.raises(TableError, match="and 20 more") as caught:
        read_table(written(tmp_path, text), ["pneumonia"])
    assert "Doe" not in str(caught.value)


def test_a_table_as_a_spreadsheet_writes_it_is_read(tmp_path: Path):
    text = "image;pneumonia;patient;age\r\na.png;1;p1;3,5\r\nb.png;0;;018M\r\n"
    table = read_table(written(tmp_path, text, "utf-8-sig"), ["pneumonia"])
    assert table.truth["pneumonia"].tolist() == [1.0, 0.0]
    assert table.ages == (3.5, 1.5)
    assert table.without_patient == 1
    assert len(set(table.patients)) == 2


def test_what_is_no_text_is_refused(tmp_path: Path):
    (tmp_path / "images.csv").write_bytes(b"\xff\xfe\x00image")
    with pytest.raises(TableError, match="not a text in UTF-8"):
        read_table(tmp_path / "images.csv", ["pneumonia"])
    with pytest.raises(TableError, match="cannot be read"):
        read_table(tmp_path / "absent.csv", ["pneumonia"])


@pytest.mark.parametrize(
    ("text", "years"), [("3", 3.0), ("0.5", 0.5), ("006M", 0.5), ("003Y", 3.0), ("014D", 14 / 365.25), ("", None)]
)
def test_ages_are_years_or_dicom_ages(text: str, years: float | None):
    assert age_years(text) == (None if years is None else pytest.approx(years))


def test_age_groups_begin_where_they_say():
    groups = ["under 1 year", "1 to 5", "1 to 5", "6 to 11", "65 and over", "not stated"]
    assert [age_group(age) for age in (0.9, 1.0, 5.99, 6.0, 65.0, None)] == groups
