"""The six samples in node/samples are synthetic, say so, and are judged as they were drawn. No torch is needed."""

from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from config.settings import LookSettings, Settings
from inference.analyser import Analyser, Looked, Source
from inference.package import load_package
from ledger.records import ResultStatus, TriagePriority

ROOT = Path(__file__).resolve().parents[3]
SAMPLES = sorted((ROOT / "node" / "samples").glob("*.dcm"))
(PACKAGE,) = (ROOT / "models" / "chest-pneumonia").iterdir()


@pytest.fixture(scope="module")
def headers() -> list[Dataset]:
    return [dcmread(path, stop_before_pixels=True) for path in SAMPLES]


@pytest.fixture(scope="module")
def looked() -> list[Looked]:
    analyser = Analyser(Settings(look=LookSettings(threads=1, provider="cpu")), (load_package(PACKAGE),), children=1)
    try:
        return analyser.analyse([Source(path) for path in SAMPLES])
    finally:
        analyser.close()


def drawn_with_opacity(ds: Dataset) -> bool:
    return "Drawn with an opacity" in str(ds.ImageComments)


def test_there_are_six_and_half_of_them_have_an_opacity(headers):
    assert len(headers) == 6
    assert sum(drawn_with_opacity(ds) for ds in headers) == 3
    assert all(path.stat().st_size < 700_000 for path in SAMPLES)


def test_every_header_says_synthetic(headers):
    for ds in headers:
        assert ds.SyntheticData == "YES"
        assert str(ds.PatientName).startswith("SYNTHETIC^CHILD")
        assert "SYNTHETIC" in ds.ImageComments
        assert ds.PatientID.startswith("SYNTHETIC")


def test_the_children_are_two_to_five_and_born_that_long_before(headers):
    for ds in headers:
        age = int(ds.PatientAge[:3])
        assert 2 <= age <= 5
        before_birthday = ds.StudyDate[4:] < ds.PatientBirthDate[4:]
        assert int(ds.StudyDate[:4]) - int(ds.PatientBirthDate[:4]) - before_birthday == age


def test_they_differ_as_real_headers_do(headers):
    assert {ds.PhotometricInterpretation for ds in headers} == {"MONOCHROME1", "MONOCHROME2"}
    assert len({ds.file_meta.TransferSyntaxUID for ds in headers}) >= 4
    assert sum("ViewPosition" not in ds for ds in headers) == 1
    assert len({ds.StudyInstanceUID for ds in headers}) == 6


def test_the_gate_accepts_every_sample(looked):
    assert [one.results[0].status for one in looked] == [ResultStatus.ANALYSED] * 6, [
        one.results[0].reason for one in looked
    ]


def test_the_model_calls_exactly_the_opacities(headers, looked):
    for ds, one in zip(headers, looked, strict=True):
        finding = one.results[0].findings[0]
        assert finding.present == drawn_with_opacity(ds)
        wanted = TriagePriority.HIGH if drawn_with_opacity(ds) else TriagePriority.LOW
        assert one.results[0].priority == wanted
