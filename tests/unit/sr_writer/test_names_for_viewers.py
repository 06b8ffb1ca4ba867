"""What a viewer can show only when the object says it in the viewer's own place."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from config.settings import ProfileName, ReportSettings, Settings
from ledger.records import Region
from ledger.store import Store
from sr_writer.build import build_objects
from tests.support.dx import make_dx
from tests.support.findings import analysed, finding, keep, new_store, preferred, study
from tests.support.mr import make_mr, measured_study, squares
from tests.unit.sr_writer.test_result_objects import items


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return new_store(tmp_path)


def probabilities(ds: Dataset) -> list[tuple[str, str]]:
    """How the numbers that are probabilities are named: (scheme, meaning)."""
    names = [item.ConceptNameCodeSequence[0] for item in items(ds) if item.ValueType == "NUM"]
    return [(name.CodingSchemeDesignator, name.CodeMeaning) for name in names if "robability" in name.CodeMeaning]


@pytest.mark.parametrize(
    ("profile", "name"),
    [("ohif", ("99OPENTRIAGE", "Pleural effusion probability")), ("generic-pacs", ("DCM", "Probability"))],
)
def test_beside_a_box_ohif_writes_the_names_of_its_numbers_alone(
    store: Store, profile: ProfileName, name: tuple[str, str]
) -> None:
    boxed = finding("pleural_effusion", regions=(Region((30.0, 40.0, 90.0, 120.0), 0.71),), activation=None)
    findings = study((keep(make_dx(), store), [analysed(boxed)]))
    settings = Settings(report=ReportSettings(localization="box"))
    made = preferred(build_objects(findings, store, settings, "2.25.7", profile))
    (ds,) = [dcmread(BytesIO(item.content)) for item in made if item.kind == "measurement_sr"]
    assert probabilities(ds) == [name]


def test_a_segment_says_its_colour(store: Store) -> None:
    series = make_mr([np.full((64, 64), 40)] * 3)
    findings = measured_study(store, series, squares(20, 20, 20))
    made = build_objects(findings, store, Settings(), "2.25.7", "ohif")
    (ds,) = [dcmread(BytesIO(item.content)) for item in made if item.kind == "segmentation"]
    assert len(ds.SegmentSequence[0].RecommendedDisplayCIELabValue) == 3
