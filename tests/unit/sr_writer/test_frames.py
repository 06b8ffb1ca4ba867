"""Of an image of several frames the model looks at one. A reference without a number means all of them (PS3.3 10.3)."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    DigitalXRayImageStorageForPresentation,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    OphthalmicTomographyImageStorage,
)

from config.settings import Destination, ReportSettings, Settings
from inference.pixels import read_format
from ledger.records import Region, ReportKind, ResultObject, SentReference, StudyFindings, TriagePriority
from ledger.store import Store
from sr_writer.build import build_objects, plan_of
from sr_writer.profiles import plain
from tests.support.dx import make_dx
from tests.support.findings import analysed, finding, keep, new_store, picture, study
from tests.support.reports import dataset

BOX = Settings(report=ReportSettings(localization="box"))
BOXED = finding(regions=(Region((30.25, 40.0, 90.0, 120.5), 0.71),))
MARKS: Destination = plain().model_copy(update={"presentation_state": True})
EVIDENCE = ("CurrentRequestedProcedureEvidenceSequence", "PredecessorDocumentsSequence")  # whole instances
MEASURED = SentReference("measurement_sr", "1.2.840.10008.5.1.4.1.1.88.33", "2.25.11", "2.25.12")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return new_store(tmp_path)


def alarm(store: Store, *sources: Dataset) -> StudyFindings:
    """One study; the model drew a box in each image, and each is HIGH."""
    for ds in sources:
        ds.StudyInstanceUID = sources[0].StudyInstanceUID
    shown = picture(store, make_dx())
    return study(*((keep(ds, store), [analysed(BOXED, display_path=shown)]) for ds in sources))


def build(findings: StudyFindings, store: Store) -> list[ResultObject]:
    return build_objects(findings, store, BOX, "2.25.7", plan_of(MARKS, findings))


def references(ds: Dataset) -> Iterator[tuple[str, int | None]]:
    """Every reference to an image, with its frame number; lists of evidence name whole instances."""
    for element in ds:
        if element.VR == "SQ" and element.keyword not in EVIDENCE:
            for item in element.value:
                if "ReferencedSOPInstanceUID" in item:
                    yield str(item.ReferencedSOPInstanceUID), item.get("ReferencedFrameNumber")
                yield from references(item)


def named(made: list[ResultObject], ds: Dataset) -> dict[str, set[int | None]]:
    """By kind: the frames of `ds` that the objects refer to."""
    found: dict[str, set[int | None]] = {}
    for one in made:
        frames = {frame for uid, frame in references(dataset(one)) if uid == ds.SOPInstanceUID}
        found[one.kind] = found.get(one.kind, set()) | frames
    return {kind: frames for kind, frames in found.items() if frames}


def two(several: Dataset) -> tuple[Dataset, Dataset]:
    """With a second one of seven frames; sorted as a report sorts equals, by SOP Instance UID."""
    second = make_dx(SOPClassUID=MultiFrameGrayscaleByteSecondaryCaptureImageStorage, NumberOfFrames=7)
    first, last = sorted((several, second), key=lambda ds: str(ds.SOPInstanceUID))
    return first, last


def test_every_kind_names_the_frame_of_every_image(store: Store) -> None:
    several = make_dx(SOPClassUID=MultiFrameGrayscaleWordSecondaryCaptureImageStorage, NumberOfFrames=4)
    first, second = two(several)
    made = build(alarm(store, first, second), store)
    middle = {str(first.SOPInstanceUID): 3, str(second.SOPInstanceUID): 4}
    if first is not several:
        middle = dict(zip(middle, (4, 3), strict=True))
    for ds, kinds in (
        (first, {"measurement_sr", "secondary_capture", "key_objects", "presentation_state"}),
        (second, {"measurement_sr", "key_objects"}),
    ):
        assert named(made, ds) == {kind: {middle[str(ds.SOPInstanceUID)]} for kind in kinds}


def test_a_withdrawal_names_the_frame_too(store: Store) -> None:
    several = make_dx(SOPClassUID=MultiFrameGrayscaleWordSecondaryCaptureImageStorage, NumberOfFrames=4)
    found = replace(
        alarm(store, several),
        kind=ReportKind.WITHDRAWN,
        priority=TriagePriority.NOT_ASSESSED,
        predecessors=(MEASURED,),
        cause="Model chest-pneumonia 1.0.0 was recalled.",
    )
    assert named(build(found, store), several) == {"measurement_sr": {3}}


@pytest.mark.parametrize("uid", [OphthalmicTomographyImageStorage, "1.2.826.0.1.3680043.9.1"])
def test_a_class_that_nobody_knows_to_have_one_frame_may_have_several(uid: str, store: Store) -> None:
    several = make_dx(SOPClassUID=uid, NumberOfFrames=5)
    assert named(build(alarm(store, several), store), several)["key_objects"] == {3}


def test_an_image_of_one_frame_is_named_without_a_number(store: Store) -> None:
    """A DX image has one frame by its class, whatever its header says."""
    for ds in (
        make_dx(SOPClassUID=DigitalXRayImageStorageForPresentation, NumberOfFrames=3),
        make_dx(SOPClassUID=MultiFrameGrayscaleWordSecondaryCaptureImageStorage, NumberOfFrames=1),
    ):
        assert set().union(*named(build(alarm(store, ds), store), ds).values()) == {None}


def test_it_is_the_frame_that_the_model_saw(store: Store) -> None:
    """The stage that decodes and the stage that writes agree on which it is."""
    for frames in (2, 3, 4, 5):
        several = make_dx(SOPClassUID=MultiFrameGrayscaleWordSecondaryCaptureImageStorage, NumberOfFrames=frames)
        looked_at = read_format(several, several.file_meta.TransferSyntaxUID, 2**30).middle_frame
        assert named(build(alarm(store, several), store), several)["key_objects"] == {looked_at + 1}
