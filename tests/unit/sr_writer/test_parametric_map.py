"""Where a slice has a place in the patient, its activation is a map of floats in that very place."""

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedMRImageStorage
from structlog.testing import capture_logs

from config.settings import ReportSettings, Settings
from ledger.records import ActivationMap, StudyFindings, TriagePriority
from ledger.store import Store
from sr_writer.parametric_map import parametric_maps
from tests.support.findings import analysed, finding, flagged_study, keep, new_store, study
from tests.support.mr import BRAIN, head, make_mr, measured_study, squares
from tests.support.reports import dataset, report_of

SIDE, MEDIUM = 64, TriagePriority.MEDIUM
PEAK = ActivationMap(
    tuple(tuple(8.0 if (y, x) == (1, 2) else -1.0 for x in range(4)) for y in range(4)), (0, 0, 64, 64)
)
WEAK = ActivationMap(((0.5, 0.0), (0.0, 0.0)), (0, 0, 64, 64))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return new_store(tmp_path_factory.mktemp("results"))


def series(**overrides: object) -> list[Dataset]:
    return make_mr([head(False, SIDE)] * 3, **overrides)


def slices(store: Store, sources: list[Dataset], *probabilities: float) -> StudyFindings:
    """The first slice has the strongest evidence."""
    maps = [PEAK, *[WEAK] * (len(sources) - 1)]
    given = probabilities or (0.9,) * len(sources)
    return study(
        *[
            (
                keep(ds, store),
                [analysed(finding(probability=p, site=BRAIN, activation=m), priority=TriagePriority.MEDIUM)],
            )
            for ds, m, p in zip(sources, maps, given, strict=True)
        ]
    )


def frames(ds: Dataset) -> np.ndarray[tuple[int, int, int], np.dtype[np.float32]]:
    return np.frombuffer(ds.FloatPixelData, "<f4").reshape(ds.NumberOfFrames, ds.Rows, ds.Columns)


def test_activation_lies_on_its_slice_from_0_to_1_and_says_what_it_is(store: Store) -> None:
    sources = series()
    (made,) = parametric_maps(report_of(slices(store, sources), store), store)
    ds = dataset(made)
    values = frames(ds)
    assert values.dtype == np.float32
    assert (values.min(), values.max()) == (0.0, 1.0)
    at = [item.PlanePositionSequence[0].ImagePositionPatient for item in ds.PerFrameFunctionalGroupsSequence]
    by_slice = [values[at.index(source.ImagePositionPatient)] for source in sources]
    y, x = np.unravel_index(by_slice[0].argmax(), by_slice[0].shape)
    assert 16 <= y < 32
    assert 32 <= x < 48
    assert 0.0 < by_slice[1].max() < 0.1, "one scale for all slices: weak evidence looks weak"
    assert ds.FrameOfReferenceUID == sources[0].FrameOfReferenceUID
    (mapping,) = ds.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    assert mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0].CodeValue == "130402"
    assert ds.ContentQualification == "RESEARCH"


def test_only_slices_that_say_something_have_a_frame(store: Store) -> None:
    (made,) = parametric_maps(report_of(slices(store, series(), 0.9, 0.1, 0.7), store), store)
    assert dataset(made).NumberOfFrames == 2


def test_no_place_no_map(store: Store) -> None:
    """A radiograph; slices without a frame of reference; masks; and a site that wants no places."""
    chest = report_of(flagged_study(store), store)
    nowhere = report_of(slices(store, series(FrameOfReferenceUID=None)), store)
    masks = report_of(measured_study(store, series(), squares(20, 20, 0)), store)
    hidden = report_of(slices(store, series()), store, Settings(report=ReportSettings(localization="off")))
    for report in (chest, nowhere, masks, hidden):
        assert parametric_maps(report, store) == []


def test_the_same_report_gives_the_same_bytes(store: Store) -> None:
    report = report_of(slices(store, series()), store)
    assert parametric_maps(report, store)[0].content == parametric_maps(report, store)[0].content


def test_an_image_of_several_frames_has_no_map_and_nobody_is_warned(store: Store) -> None:
    """Each of its frames says for itself where it lies; what stands beside them is the place of none."""
    several = series(SOPClassUID=EnhancedMRImageStorage, NumberOfFrames=4)
    with capture_logs() as events:
        assert parametric_maps(report_of(slices(store, several), store), store) == []
    assert events == []
