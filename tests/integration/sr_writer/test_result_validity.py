"""Other people's programs accept every object we make, from every kind of source header."""

import dataclasses
import subprocess
import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from config.settings import DecideSettings, ProfileName, ReportSettings, Settings
from ledger.records import Code, Region, ReportKind, ResultObject, SentReference, StudyFindings, TriagePriority
from ledger.store import Store
from sr_writer.build import build_objects
from sr_writer.profiles import PROFILES
from tests.support.dx import make_dx
from tests.support.findings import (
    OTHER_MODEL,
    analysed,
    finding,
    flagged_study,
    keep,
    keep_bytes,
    new_store,
    not_assessed,
    picture,
    study,
)
from tests.support.peers import need
from tests.support.realdata import need_data

EVERYTHING = ReportSettings(localization="box", acr_categories={"critical": 1, "HIGH": 2, "MEDIUM": 3})
FRACTURE = Code("125605004", "SCT", "Fracture of bone")
BEFORE = (
    SentReference("measurement_sr", "1.2.840.10008.5.1.4.1.1.88.33", "2.25.11", "2.25.12"),
    SentReference("text_sr", "1.2.840.10008.5.1.4.1.1.88.22", "2.25.13", "2.25.14"),
)


def _request() -> Sequence:
    item = Dataset()
    item.RequestedProcedureID, item.RequestedProcedureDescription = "RP7", "Thorax"
    return Sequence([item])


def _cr() -> Dataset:
    ds = make_dx(SOPClassUID=ComputedRadiographyImageStorage, Modality="CR", ImagerPixelSpacing=None)
    ds.PatientOrientation = None
    return ds


SOURCES: dict[str, Callable[[], Dataset]] = {
    "plain DX": make_dx,
    "MONOCHROME1": lambda: make_dx(PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE"),
    "odd dates": lambda: make_dx(PatientBirthDate="unknown", StudyDate="2026.11.20", StudyTime="10:11:12"),
    "odd age and sex": lambda: make_dx(PatientAge="4 years", PatientSex="U"),
    "Japanese": lambda: make_dx(
        SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう"
    ),
    "umlaut without a character set": lambda: make_dx(SpecificCharacterSet=None, PatientName="Müller^Jörg"),
    "missing type 2": lambda: make_dx(
        **dict.fromkeys(
            ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID", "AccessionNumber", "StudyTime")
        ),
        ReferringPhysicianName=None,
    ),
    "SC class": lambda: make_dx(SOPClassUID=SecondaryCaptureImageStorage, Modality="OT", BodyPartExamined=None),
    "CR without spacing and orientation": _cr,
    "paired body part": lambda: make_dx(BodyPartExamined="HAND", ImageLaterality="L"),
    "lossy source with a request": lambda: make_dx(
        LossyImageCompression="01", LossyImageCompressionRatio="12.5", RequestAttributesSequence=_request()
    ),
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return new_store(tmp_path)


def _check(made: list[ResultObject], folder: Path) -> None:
    """dciodvfy finds no error in any of them, but for the root of a UID that is the source's own."""
    tool = need("dciodvfy")
    for item in made:
        path = folder / f"{item.kind}{item.preference or ''}.dcm"
        path.write_bytes(item.content)
        done = subprocess.run([tool, "-new", str(path)], capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        errors = [line for line in said.splitlines() if "Error" in line and "Illegal root for UID" not in line]
        assert not errors, f"{item.kind}:\n{said}"
        assert not [line for line in said.splitlines() if "Illegal root" in line and "<2.25." in line]
        assert any(name in said for name in ("SR", "SCImage", "KeyObject", "Softcopy")), (
            "the validator did not recognise the object"
        )


def _build(
    findings: StudyFindings, store: Store, settings: Settings | None = None, profile: ProfileName = "generic-pacs"
) -> list[ResultObject]:
    return build_objects(findings, store, settings or Settings(), "2.25.7", profile)


@pytest.mark.parametrize("name", SOURCES)
def test_no_validator_error_whatever_the_source_header(name: str, store: Store, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        findings = flagged_study(store, SOURCES[name]())
    made = _build(findings, store)
    assert [item.kind for item in made] == ["measurement_sr"] * 3 + ["text_sr", "secondary_capture", "key_objects"]
    _check(made, tmp_path)


def _two_images(store: Store, **changes: Any) -> StudyFindings:
    first, second = make_dx(), make_dx()
    second.StudyInstanceUID = first.StudyInstanceUID
    one = analysed(finding(), finding("pneumothorax", 0.45), display_path=picture(store, first), **changes)
    return study((keep(first, store), [one]), (keep(second, store), [not_assessed()]))


def _several_frames(store: Store) -> StudyFindings:
    first, second = (
        make_dx(SOPClassUID=MultiFrameGrayscaleWordSecondaryCaptureImageStorage, NumberOfFrames=frames)
        for frames in (4, 7)
    )
    second.StudyInstanceUID = first.StudyInstanceUID
    return study((keep(first, store), [analysed()]), (keep(second, store), [analysed()]))


def _low(store: Store) -> StudyFindings:
    said = analysed(finding(probability=0.1), priority=TriagePriority.LOW)
    return study((keep(make_dx(), store), [said]))


def _models(store: Store) -> StudyFindings:
    results = [analysed(), analysed(finding("pneumothorax", 0.9), model=OTHER_MODEL)]
    return study((keep(make_dx(), store), results))


def _boxes(store: Store, priority: TriagePriority) -> StudyFindings:
    source = make_dx(BodyPartExamined="HAND", ImageLaterality="L")
    regions = (Region((30.25, 40.0, 90.0, 120.5), 0.71), Region((0.0, 5.0, 30.0, 256.0), 0.52))
    said = finding("fracture", 0.7, code=FRACTURE, site=None, regions=regions)
    shown = picture(store, source) if priority is TriagePriority.HIGH else None
    return study((keep(source, store), [analysed(said, priority=priority, display_path=shown)]))


REPORTS: dict[str, Callable[[Store], StudyFindings]] = {
    "unflagged": _low,
    "unflagged revision": lambda store: dataclasses.replace(_low(store), predecessors=BEFORE),
    "not assessed": lambda store: study((keep(make_dx(), store), [not_assessed()])),
    "provisional": lambda store: dataclasses.replace(flagged_study(store), kind=ReportKind.PROVISIONAL),
    "revision": lambda store: dataclasses.replace(flagged_study(store), predecessors=BEFORE),
    "several models": _models,
    "two images, one not assessed, several labels": _two_images,
    "two images of several frames": _several_frames,
    "boxes, no alarm": lambda store: _boxes(store, TriagePriority.LOW),
    "boxes of a flagged study": lambda store: _boxes(store, TriagePriority.HIGH),
    "critical flags": lambda store: flagged_study(store, critical_flags=("RESPIRATORY_EMERGENCY", "NEUROLOGICAL_RISK")),
}


@pytest.mark.parametrize("name", REPORTS)
def test_no_validator_error_whatever_the_report_says(name: str, store: Store, tmp_path: Path) -> None:
    settings = Settings(decide=DecideSettings(critical_flags_in_dicom=True), report=EVERYTHING)
    _check(_build(REPORTS[name](store), store, settings), tmp_path)


@pytest.mark.parametrize("name", ["revision", "boxes of a flagged study", "not assessed"])
@pytest.mark.parametrize("profile", [profile for profile in PROFILES if profile != "generic-pacs"])
def test_no_validator_error_whatever_the_profile(profile: ProfileName, name: str, store: Store, tmp_path: Path) -> None:
    _check(_build(REPORTS[name](store), store, Settings(report=EVERYTHING), profile), tmp_path)


def test_the_validator_sees_an_error_when_there_is_one(store: Store, tmp_path: Path) -> None:
    """The check itself can fail."""
    item = _build(_low(store), store)[0]
    path = tmp_path / "broken.dcm"
    path.write_bytes(item.content)
    ds = dcmread(path)
    del ds.CompletionFlag
    ds.save_as(path)
    with pytest.raises(AssertionError):
        _check([dataclasses.replace(item, content=path.read_bytes())], tmp_path)


def test_dcmtk_prints_every_finding_under_its_name(store: Store, tmp_path: Path) -> None:
    need("dsrdump")
    made = _build(_two_images(store), store)
    for item in (made[0], next(one for one in made if one.kind == "text_sr")):
        path = tmp_path / f"{item.kind}.dcm"
        path.write_bytes(item.content)
        dump = subprocess.run(["/usr/bin/dsrdump", "+Pl", str(path)], capture_output=True, text=True, check=True).stdout
        page = tmp_path / f"{item.kind}.html"
        subprocess.run(["/usr/bin/dsr2html", str(path), str(page)], capture_output=True, check=True)
        for text in (dump, page.read_text()):
            assert "Pneumonia" in text
            assert "Pneumothorax" in text
    assert 'Probability")="93.1"' in _dump(tmp_path / "measurement_sr.dcm")
    assert "Pneumonia: FLAGGED (image 1 of 2" in (tmp_path / "text_sr.html").read_text()


def _dump(path: Path) -> str:
    return subprocess.run(["/usr/bin/dsrdump", "+Pl", str(path)], capture_output=True, text=True, check=True).stdout


REAL = (
    "dicom/dx_not_a_human_chest.dcm",
    "dicom/wg04/JLSN/RG1_JLSN",
    "dicom/wg04/JLSL/RG2_JLSL",
    "dicom/wg04/J2KI/MG1_J2KI",
    "dicom/wg04/J2KI/NM1_J2KI",
    "dicom/wg04/J2KI/US1_J2KI",
    "dicom/wg04/JLSL/CT1_JLSL",
    "dicom/pydicom_data/data_store/data/color-pl.dcm",
    "dicom/pydicom_data/data_store/data/JPEG-LL.dcm",
)


@pytest.mark.parametrize("name", REAL)
def test_real_headers_give_valid_objects(name: str, store: Store, tmp_path: Path) -> None:
    """Whatever a real image's class and header are, a report about it is valid."""
    content = need_data(name).read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = dcmread(BytesIO(content), stop_before_pixels=True)
        found = study((keep_bytes(content, ds, store), [analysed()]))
    made = _build(found, store)
    _check(made, tmp_path)
    again = dcmread(BytesIO(made[0].content))
    assert again.PatientID == ds.get("PatientID", "")
    assert again.PatientName == ds.get("PatientName", "")
