"""Whatever a source's header lacks or garbles, each destination gets its result, of the same patient, and valid."""

import subprocess
import warnings
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from config.settings import ProfileName, ReportSettings, Settings
from ledger.records import (
    InstanceRef,
    InstanceResults,
    Region,
    ReportKind,
    ResultObject,
    SentReference,
    StudyFindings,
    TriagePriority,
)
from ledger.store import Store
from sr_writer.build import build_objects, plan_of
from tests.support.dx import make_dx
from tests.support.findings import analysed, finding, keep_bytes, not_assessed, picture, study
from tests.support.mr import BRAIN, head, make_mr, measured_study, squares
from tests.support.peers import need
from tests.support.reports import dataset, wanting_everything
from tests.unit.sr_writer.test_result_objects import items

PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
SETTINGS = Settings(report=ReportSettings(localization="box"))
FULL = ("measurement_sr", "text_sr", "secondary_capture", "key_objects", "presentation_state")
KINDS: dict[ProfileName, tuple[str, ...]] = {
    "generic-pacs": FULL,
    "ohif": FULL[:4],
    "orthanc-stone": FULL,
    "air": ("measurement_sr", "secondary_capture", "key_objects"),
    "triage-only": ("text_sr", "secondary_capture", "key_objects"),
}


def raw(text: bytes, charset: str | list[str] | None = None, **overrides: Any) -> Callable[[], tuple[Dataset, bytes]]:
    """A DX whose name holds exactly these bytes, whatever its character set says of them."""

    def made() -> tuple[Dataset, bytes]:
        padded = text + b" " * (len(text) % 2)
        ds = make_dx(SpecificCharacterSet=charset, PatientName="X" * len(padded), **overrides)
        content = _bytes(ds)
        assert content.count(b"X" * len(padded)) == 1
        return ds, content.replace(b"X" * len(padded), padded)

    return made


def plain(**overrides: Any) -> Callable[[], tuple[Dataset, bytes]]:
    def made() -> tuple[Dataset, bytes]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values that pydicom, too, finds odd
            ds = make_dx(**overrides)
            return ds, _bytes(ds)

    return made


def _bytes(ds: Dataset) -> bytes:
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


MISSING = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID", "AccessionNumber", "StudyTime")
EMPTY = {"PatientName": "", "PatientID": "", "PatientBirthDate": "", "PatientSex": ""}
NO_PLACE: dict[str, Any] = {"ImagerPixelSpacing": None, "PatientOrientation": None}

# Name -> the source, and what of its patient module must stand in the result where that is not the source's own text.
SOURCES: dict[str, tuple[Callable[[], tuple[Dataset, bytes]], dict[str, str]]] = {
    "plain DX": (plain(), {}),
    "missing type 2": (plain(**dict.fromkeys((*MISSING, "ReferringPhysicianName"))), EMPTY),
    "empty type 2": (plain(**dict.fromkeys((*MISSING, "ReferringPhysicianName"), "")), EMPTY),
    "dirty type 2": (
        plain(
            PatientID=" 12\t34 ",
            PatientBirthDate="unknown",
            PatientSex="female",
            PatientAge="4 years",
            StudyDate="2026.11.20",
            StudyTime="10:11:12",
            StudyID="more than sixteen characters",
            AccessionNumber="ACCESSION-NUMBER-0001",
            StudyDescription="Chest " * 20,
        ),
        {"PatientID": "12␉34", "PatientBirthDate": "", "PatientSex": ""},
    ),
    "sex U": (plain(PatientSex="U"), {"PatientSex": ""}),
    "Japanese, ISO 2022 IR 87": (
        raw(
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
            ["", "ISO 2022 IR 87"],
        ),
        {"PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう"},
    ),
    "Korean, ISO 2022 IR 149": (
        raw(
            b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
            ["", "ISO 2022 IR 149"],
        ),
        {"PatientName": "Hong^Gildong=洪^吉洞=홍^길동"},
    ),
    "Arabic, ISO_IR 127": (
        raw(b"\xe2\xc8\xc7\xe6\xea^\xe4\xe6\xd2\xc7\xd1", "ISO_IR 127"),
        {"PatientName": "قباني^لنزار"},
    ),
    "umlauts in Latin-1, no character set": (raw("Müller^Jörg".encode("latin-1")), {"PatientName": "Müller^Jörg"}),
    "umlauts in UTF-8, no character set": (raw("Müller^Jörg".encode()), {"PatientName": "Müller^Jörg"}),
    "an unknown character set": (raw(b"Plain^Name", "NONSENSE"), {"PatientName": "Plain^Name"}),
    "no spacing": (plain(ImagerPixelSpacing=None), {}),
    "no PatientOrientation": (plain(PatientOrientation=None), {}),
    "CR without both": (plain(SOPClassUID=ComputedRadiographyImageStorage, Modality="CR", **NO_PLACE), {}),
    "SC-class X-ray": (
        plain(SOPClassUID=SecondaryCaptureImageStorage, Modality="OT", **NO_PLACE),
        {},
    ),
    "multi-frame DX": (plain(NumberOfFrames=3), {}),
    "MONOCHROME1": (plain(PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE"), {}),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("store"), fsync=lambda descriptor: None)
    store.prepare()
    return store


def received(name: str, store: Store) -> tuple[InstanceRef, Dataset, dict[str, str]]:
    """The stored source, and what the results must say of its patient."""
    make, changed = SOURCES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds, content = make()
        said = {keyword: str(ds.get(keyword) or "") for keyword in PATIENT} | changed
        return keep_bytes(content, ds, store), ds, said


def flagged(instance: InstanceRef, ds: Dataset, store: Store) -> StudyFindings:
    """HIGH, with a heat map and a box, beside an image that could not be judged."""
    other = replace(instance, sop_instance_uid="2.25.99")
    said = finding(regions=(Region((30.25, 40.0, 90.0, 120.5), 0.71),))
    return study((instance, [analysed(said, display_path=picture(store, ds))]), (other, [not_assessed()]))


def build(findings: StudyFindings, store: Store, profile: ProfileName) -> list[ResultObject]:
    return build_objects(findings, store, SETTINGS, "2.25.7", plan_of(wanting_everything(profile), findings))


def errors_of(made: ResultObject, folder: Path) -> list[str]:
    """What dciodvfy calls an error, but for the root of a UID that is the source's own."""
    path = folder / f"{made.sop_instance_uid}.dcm"
    path.write_bytes(made.content)
    done = subprocess.run([need("dciodvfy"), "-new", str(path)], capture_output=True, text=True, check=False)
    said = (done.stdout + done.stderr).splitlines()
    assert said, "the validator did not recognise the object"
    return [line for line in said if "Error" in line and "Illegal root for UID" not in line]


def check(made: list[ResultObject], patient: dict[str, str], folder: Path) -> None:
    for one in made:
        ds = dataset(one)
        for keyword, value in patient.items():
            assert keyword in ds, (one.kind, keyword)
            assert str(ds[keyword].value or "") == value, (one.kind, keyword)
        assert not (said := errors_of(one, folder)), (one.kind, one.sop_class_uid, said)


@pytest.mark.parametrize("profile", KINDS)
@pytest.mark.parametrize("name", SOURCES)
def test_each_destination_gets_a_valid_result_of_the_same_patient(
    name: str, profile: ProfileName, store: Store, tmp_path: Path
) -> None:
    instance, ds, patient = received(name, store)
    made = build(flagged(instance, ds, store), store, profile)
    assert tuple(dict.fromkeys(one.kind for one in made)) == KINDS[profile]
    check(made, patient, tmp_path)


@pytest.mark.parametrize("name", SOURCES)
def test_a_withdrawal_is_of_the_same_patient(name: str, store: Store, tmp_path: Path) -> None:
    instance, ds, patient = received(name, store)
    before = tuple(SentReference(kind, "1.2.840.10008.5.1.4.1.1.88.33", "2.25.1", "2.25.2") for kind in FULL[:2])
    findings = replace(
        flagged(instance, ds, store),
        kind=ReportKind.WITHDRAWN,
        priority=TriagePriority.NOT_ASSESSED,
        predecessors=before,
        cause="The images were sent under another patient's name.",
    )
    made = build(findings, store, "generic-pacs")
    assert {one.kind for one in made} == {"measurement_sr", "text_sr"}
    check(made, patient, tmp_path)


SLICES: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "plain MR": ({}, {}),
    "sex U, no dates": (
        {"PatientSex": "U", "PatientBirthDate": "?", "StudyDate": None},
        {"PatientSex": "", "PatientBirthDate": ""},
    ),
    "Japanese": (
        {"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう"},
        {"PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう"},
    ),
    "missing type 2": (dict.fromkeys((*MISSING, "PositionReferenceIndicator")), EMPTY),
}


@pytest.mark.parametrize("name", SLICES)
def test_masks_and_maps_of_slices_too(name: str, store: Store, tmp_path: Path) -> None:
    """A segmentation by one model, and an activation map by another, of one series."""
    overrides, changed = SLICES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        series = make_mr([head(False, 64)] * 4, **overrides)
        findings = measured_study(store, series, squares(0, 20, 18, 0))
    mapped = analysed(finding(site=BRAIN), priority=TriagePriority.MEDIUM)
    both = tuple(InstanceResults(item.instance, (*item.results, mapped)) for item in findings.looked_at)
    made = build(replace(findings, looked_at=both, priority=TriagePriority.MEDIUM), store, "generic-pacs")
    assert {"segmentation", "parametric_map"} <= {one.kind for one in made}
    check(made, {keyword: str(series[0].get(keyword) or "") for keyword in PATIENT} | changed, tmp_path)


def test_of_several_frames_the_one_that_was_looked_at_is_named(store: Store, tmp_path: Path) -> None:
    """Where the class has frames; a DX image has one, whatever its header says."""
    ds = make_dx(SOPClassUID=MultiFrameGrayscaleWordSecondaryCaptureImageStorage, NumberOfFrames=4)
    made = build(flagged(keep_bytes(_bytes(ds), ds, store), ds, store), store, "generic-pacs")
    check(made, {}, tmp_path)
    report = dataset(next(one for one in made if one.kind == "measurement_sr"))
    regions = [item for item in items(report) if item.ValueType == "SCOORD"]
    assert regions
    for region in regions:
        assert region.ContentSequence[0].ReferencedSOPSequence[0].ReferencedFrameNumber == 3
    capture = dataset(next(one for one in made if one.kind == "secondary_capture"))
    assert capture.SourceImageSequence[0].ReferencedFrameNumber == 3
