"""For triage alone: a picture of words, which shows nothing of the image and no place in it."""

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from config.settings import ReportSettings, Settings
from ledger.records import Region
from ledger.store import Store
from sr_writer.build import build_objects
from sr_writer.picture import BANNER_HEIGHT, MIN_WIDTH
from tests.support.dx import make_dx
from tests.support.findings import analysed, blob, finding, keep, new_store, picture, study
from tests.support.reports import dataset

BOX = Settings(report=ReportSettings(localization="box"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return new_store(tmp_path)


def capture(store: Store, source: Dataset, settings: Settings = BOX, **said: object) -> Dataset:
    shown = picture(store, source)
    findings = study((keep(source, store), [analysed(finding(**said), display_path=shown)]))  # type: ignore[arg-type]
    made = build_objects(findings, store, settings, "2.25.7", "triage-only")
    return dataset(next(one for one in made if one.kind == "secondary_capture"))


def test_it_is_the_same_whatever_the_image_shows_and_wherever_the_model_looked(store: Store) -> None:
    y, x = np.mgrid[0:256, 0:256]
    sources = [make_dx(), make_dx((x * y % 4000).astype(np.uint16))]
    places = [
        {"activation": blob()},
        {"activation": None, "regions": (Region((10.0, 10.0, 60.0, 90.0), 0.9),)},
        {"activation": blob(), "pointing_accuracy": 0.9},
    ]
    drawn = [capture(store, source, **place).pixel_array for source in sources for place in places]
    for other in drawn[1:]:
        assert np.array_equal(drawn[0], other)


def test_it_says_the_class_and_that_it_is_research(store: Store) -> None:
    source = make_dx()
    ds = capture(store, source)
    assert (ds.Columns, ds.BurnedInAnnotation) == (MIN_WIDTH, "YES")
    assert BANNER_HEIGHT < ds.Rows < 3 * BANNER_HEIGHT
    assert "heat map" not in ds.DerivationDescription
    assert ds.SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert ds.SeriesDescription == "AI TRIAGE HIGH: picture (research)"
    red = ds.pixel_array[:BANNER_HEIGHT].reshape(-1, 3).mean(axis=0)
    assert red[0] > 150 > red[1], "HIGH is red"


def test_no_other_object_of_the_profile_says_where(store: Store) -> None:
    source = make_dx()
    said = finding(regions=(Region((10.0, 10.0, 60.0, 90.0), 0.9),))
    findings = study((keep(source, store), [analysed(said, display_path=picture(store, source))]))
    made = build_objects(findings, store, BOX, "2.25.7", "triage-only")
    assert {one.kind for one in made} == {"text_sr", "secondary_capture", "key_objects"}
    for one in made:
        text = dataset(one).to_json()
        assert "SCOORD" not in text
        assert " box" not in text
