"""What a table says of an image, and what it does not say."""

import numpy as np
import pytest
from PIL import Image

from tests.train.sets import SIZE, recipe, write_csv_set
from training.data.chexpert import SMOOTHED, meaning
from training.data.readers import read_set
from training.recipe import DataSet, RecipeError

SPLIT = {"train": 0.6, "calibration": 0.2, "test": 0.2}


def test_adults_have_the_label_that_their_findings_mean_or_deny_and_else_none(tmp_path):
    (tmp_path / "adult" / "images").mkdir(parents=True)
    rows = [("Edema|Mass", 1.0), ("No Finding", 0.0), ("Cardiomegaly", np.nan), ("Pneumonia", 1.0)]
    lines = ["image,patient_id,age_years,sex,view,findings"]
    for i, (findings, _) in enumerate(rows):
        Image.fromarray(np.full((40, 40), 40 * i, np.uint8)).save(tmp_path / "adult" / "images" / f"{i}.jpg")
        lines.append(f"{i}.jpg,{i},{30 + i},F,PA,{findings}")
    (tmp_path / "adult" / "labels.csv").write_text("\n".join(lines) + "\n")
    plan = DataSet(reader="chest_adult", folder="adult", domain="adults", split=SPLIT)
    data = read_set(plan, recipe(labels=["pneumonia"]), tmp_path)
    np.testing.assert_array_equal(data.labels[:, 0], [wanted for _, wanted in rows])
    assert data.column("age_years").tolist() == [30, 31, 32, 33]
    assert data.column("view").tolist() == ["PA"] * 4
    assert data.groups[0] == "nih-0"
    assert len(data.labelled()) == 3
    mass = plan.model_copy(update={"positive": {"pneumonia": ("Mass",)}})
    assert np.isnan(read_set(mass, recipe(labels=["pneumonia"]), tmp_path).labels[3, 0])


@pytest.mark.parametrize(("policy", "wanted"), [("ones", 1.0), ("zeros", 0.0), ("ignore", np.nan)])
def test_an_uncertain_label_is_what_the_policy_says(policy, wanted):
    assert meaning("-1.0", "a.jpg", policy, "negative") == pytest.approx(wanted, nan_ok=True)
    assert meaning("1", "a.jpg", policy, "negative") == 1.0
    assert meaning("0.0", "a.jpg", policy, "negative") == 0.0
    assert meaning("", "a.jpg", policy, "negative") == 0.0
    assert np.isnan(meaning("", "a.jpg", policy, "unknown"))


@pytest.mark.parametrize("policy", list(SMOOTHED))
def test_a_smoothed_label_lies_in_its_range_and_is_the_same_at_every_reading(policy):
    values = [meaning("-1", f"{i}.jpg", policy, "negative") for i in range(200)]
    assert values == [meaning("-1", f"{i}.jpg", policy, "negative") for i in range(200)]
    low, high = SMOOTHED[policy]
    assert low <= min(values) < low + 0.02
    assert high - 0.02 < max(values) < high


def test_a_strange_cell_is_refused():
    with pytest.raises(RecipeError, match="must be 1, 0, -1"):
        meaning("yes", "a.jpg", "ignore", "negative")


def test_a_chexpert_table_is_read_without_its_lateral_films(tmp_path):
    write_csv_set(tmp_path / "north", n=12)
    data = read_set(recipe().data[0], recipe(), tmp_path)
    assert data.pixels.shape == (12, SIZE, SIZE)
    assert int(np.isnan(data.labels).sum()) == 4
    assert data.groups[5] == "north-patient00005"
    assert set(data.column("sex").tolist()) == {"F"}
    assert data.column("age_years")[3] == 23.0


def test_a_table_without_the_label_is_refused(tmp_path):
    write_csv_set(tmp_path / "north", n=2)
    with pytest.raises(RecipeError, match="no column for edema"):
        read_set(recipe().data[0], recipe(labels=["edema"]), tmp_path)
