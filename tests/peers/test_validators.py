"""One study of each kind, in every profile: no validator finds an error, and DCMTK prints every finding by its name.

dciodvfy checks every object, PixelMed's DicomSRValidator the templates of the structured ones, dsr2html reads them.
"""

import html
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread

from config.settings import ReportSettings, Settings
from ledger.records import (
    Code,
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
from sr_writer.profiles import DEFAULT_PROFILE, PROFILES
from tests.support.dx import make_dx
from tests.support.findings import analysed, finding, flagged_study, keep, new_store, not_assessed, picture, study
from tests.support.mr import BRAIN, head, make_mr, measured_study, squares
from tests.support.peers import need
from tests.support.pixelmed import errors, validated
from tests.support.reports import wanting_everything
from tests.unit.sr_writer.test_result_objects import items

SETTINGS = Settings(report=ReportSettings(localization="box", acr_categories={"HIGH": 2}))
FRACTURE = Code("125605004", "SCT", "Fracture of bone")
BEFORE = tuple(
    SentReference(kind, f"1.2.840.10008.5.1.4.1.1.88.{suffix}", f"2.25.1{suffix}", f"2.25.2{suffix}")
    for kind, suffix in (("measurement_sr", "33"), ("text_sr", "22"))
)
STRUCTURED = ("measurement_sr", "text_sr", "key_objects")
SAID = ("Finding", "Impression", "Recommendation", "Comment", "Key Object Description")


def _chest(store: Store) -> StudyFindings:
    source = make_dx()
    said = analysed(finding(), finding("pneumothorax", 0.2), display_path=picture(store, source))
    return study((keep(source, store), [said]))


def _detector(store: Store) -> StudyFindings:
    source = make_dx(BodyPartExamined="HAND", ImageLaterality="L")
    regions = (Region((30.25, 40.0, 90.0, 120.5), 0.71), Region((0.0, 5.0, 30.0, 256.0), 0.52))
    said = finding("fracture", 0.9, code=FRACTURE, site=None, regions=regions)
    return study((keep(source, store), [analysed(said, display_path=picture(store, source))]))


def _unflagged(store: Store) -> StudyFindings:
    return study((keep(make_dx(), store), [analysed(finding(probability=0.1), priority=TriagePriority.LOW)]))


def _not_assessed(store: Store) -> StudyFindings:
    return study((keep(make_dx(), store), [not_assessed()]))


def _brain(store: Store) -> StudyFindings:
    findings = measured_study(store, make_mr([head(False, 64)] * 4), squares(0, 20, 18, 0))
    mapped = analysed(finding(site=BRAIN), priority=TriagePriority.MEDIUM)
    both = tuple(InstanceResults(item.instance, (*item.results, mapped)) for item in findings.looked_at)
    return replace(findings, looked_at=both, priority=TriagePriority.MEDIUM)


def _revised(store: Store) -> StudyFindings:
    return replace(flagged_study(store), predecessors=BEFORE, kind=ReportKind.PROVISIONAL)


def _withdrawn(store: Store) -> StudyFindings:
    return replace(
        flagged_study(store),
        kind=ReportKind.WITHDRAWN,
        priority=TriagePriority.NOT_ASSESSED,
        predecessors=BEFORE,
        cause="The model was recalled.",
    )


# A study, and the names by which a reader must find what is said of it.
STUDIES: dict[str, tuple[Callable[[Store], StudyFindings], tuple[str, ...]]] = {
    "chest": (_chest, ("Pneumonia", "Pneumothorax")),
    "detector": (_detector, ("Fracture",)),
    "brain": (_brain, ("Tumour", "Pneumonia")),
    "unflagged": (_unflagged, ("Pneumonia",)),
    "not assessed": (_not_assessed, ("the patient's age is unknown",)),
    "revision": (_revised, ("Pneumonia",)),
    "withdrawal": (_withdrawn, ("The model was recalled.",)),
}


@dataclass(frozen=True)
class Made:
    """An object of one study as a file. place: study, profile and kind, to say where something is wrong."""

    place: str
    study: str
    made: ResultObject
    path: Path


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[Made]:
    folder = tmp_path_factory.mktemp("objects")
    store = new_store(folder)
    found: dict[str, Made] = {}
    for name, (build, _) in STUDIES.items():
        findings = build(store)
        for profile in PROFILES:
            for one in build_objects(
                findings, store, SETTINGS, "2.25.7", plan_of(wanting_everything(profile), findings)
            ):
                path = folder / f"{one.sop_instance_uid}.dcm"
                path.write_bytes(one.content)
                found.setdefault(one.sop_instance_uid, Made(f"{name}, {profile}, {one.kind}", name, one, path))
    return list(found.values())


def test_there_is_an_object_of_every_kind_in_every_class(objects: list[Made]) -> None:
    offered = {(kind, uid) for row in PROFILES.values() for kind, named in row.sop_classes().items() for uid in named}
    assert {(one.made.kind, one.made.sop_class_uid) for one in objects} == offered


def test_dciodvfy_finds_no_error(objects: list[Made]) -> None:
    tool = need("dciodvfy")
    for one in objects:
        done = subprocess.run([tool, "-new", str(one.path)], capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        assert said, one.place
        assert not [line for line in said.splitlines() if "Error" in line], f"{one.place}\n{said}"


def _trees(objects: list[Made]) -> list[Made]:
    """Of each study the trees that differ: those of the default profile, and volumes in a plane."""
    return [
        one
        for one in objects
        if one.made.preference == 0
        and (
            one.place.endswith(tuple(f"{DEFAULT_PROFILE}, {kind}" for kind in ("measurement_sr", "text_sr")))
            or one.place in ("brain, ohif, measurement_sr", f"chest, {DEFAULT_PROFILE}, key_objects")
        )
    ]


@pytest.mark.timeout(600)  # half a minute of a processor, which may be a busy one
def test_pixelmed_finds_no_error_in_any_template_and_one_where_there_is_one(
    objects: list[Made], tmp_path: Path
) -> None:
    """The check itself can fail: on a text report without its language, observer and procedure."""
    trees = _trees(objects)
    ds = dcmread(BytesIO(next(one for one in trees if one.made.kind == "text_sr").made.content))
    ds.ContentSequence = [item for item in ds.ContentSequence if item.ValueType == "CONTAINER"]
    broken = tmp_path / "broken.dcm"
    ds.save_as(broken)
    said = validated([broken, *(one.path for one in trees)])
    assert errors(said[broken])
    assert not {one.place: found for one in trees if (found := errors(said[one.path]))}


def test_dsr2html_prints_every_finding_with_its_label(objects: list[Made], tmp_path: Path) -> None:
    tool = need("dsr2html")
    for one in objects:
        if one.made.kind not in STRUCTURED:
            continue
        page = tmp_path / "page.html"
        subprocess.run([tool, str(one.path), str(page)], capture_output=True, check=True)
        text = " ".join(html.unescape(page.read_text(encoding="utf-8")).split())
        for said in _said(one):
            assert said in text, (one.place, said)
        if one.made.kind == "text_sr":
            assert all(label in text for label in STUDIES[one.study][1]), (one.place, text)


def _said(one: Made) -> list[str]:
    """What the object says in words to a reader, and the name of each coded finding and number."""
    found = []
    for item in items(dcmread(BytesIO(one.made.content))):
        name = item.ConceptNameCodeSequence[0].CodeMeaning if item.get("ConceptNameCodeSequence") else ""
        if item.ValueType == "TEXT" and name in SAID:
            found.append(" ".join(str(item.TextValue).split()))
        elif item.ValueType == "CODE" and name == "Finding":
            found.append(str(item.ConceptCodeSequence[0].CodeMeaning))
        elif item.ValueType == "NUM":
            found.append(str(name))
    return found
