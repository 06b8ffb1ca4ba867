"""A data set may be cut by view; each group of ages has the calibration and operating points of its own patients."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from training.data.readers import read_set
from training.data.splits import read_splits
from training.packaging.look import Outputs
from training.packaging.package import age_groups
from training.recipe import Recipe, RecipeError, parse_recipe, read_recipe

RECIPES = Path(__file__).parents[2] / "training" / "recipes"


def adult_folder(root: Path) -> Path:
    """40 patients, each with a PA and an AP image."""
    (root / "adult" / "images").mkdir(parents=True)
    with (root / "adult" / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "patient_id", "age_years", "sex", "view", "findings"])
        for i in range(80):
            Image.fromarray(np.full((24, 24), 3 * i, np.uint8)).save(root / "adult" / "images" / f"{i}.png")
            findings = "Pneumonia" if i % 4 < 2 else "No Finding"
            writer.writerow([f"{i}.png", i // 2, 10 + i, "F", ("PA", "AP")[i % 2], findings])
    return root


def recipe(**package: Any) -> Recipe:
    chest = read_recipe(RECIPES / "chest-pneumonia.toml").model_dump()
    sets = [
        {"reader": "chest_adult", "folder": "adult", "domain": f"adults-{view}", "where": {"view": view}}
        | {"split": {"train": 0.5, "calibration": 0.5}}
        for view in ("PA", "AP")
    ]
    groups = [
        {"name": name, "domains": ["adults-PA", "adults-AP"], "ages_years": ages, "target_sensitivity": target}
        | {"may_raise_priority": name == "younger"}
        for name, ages, target in (("younger", (10, 50), 0.98), ("older", (50, 120), 0.5))
    ]
    chest |= {"data": sets, "size": 16, "package": chest["package"] | {"age_groups": groups} | package}
    return parse_recipe(chest)


def test_a_set_cut_by_view_keeps_each_patient_in_one_split(tmp_path: Path) -> None:
    plan = recipe()
    splits = read_splits(plan, adult_folder(tmp_path))
    assert {domain: set(part.column("view")) for domain, part in splits["train"].by_domain().items()} == {
        "adults-PA": {"PA"},
        "adults-AP": {"AP"},
    }
    assert sum(len(part) for part in splits.values()) == 80
    assert not set(splits["train"].groups) & set(splits["calibration"].groups)


def test_a_set_of_which_nothing_is_left_is_refused(tmp_path: Path) -> None:
    plan = recipe().data[0].model_copy(update={"where": {"view": "LL"}})
    with pytest.raises(RecipeError, match="no row"):
        read_set(plan, recipe(), adult_folder(tmp_path))


def test_each_group_is_calibrated_on_its_own_patients(tmp_path: Path) -> None:
    plan = recipe()
    images = read_splits(plan, adult_folder(tmp_path))["calibration"]
    ill = images.labels[:, 0]
    old = images.column("age_years") >= 50
    wrong = old & (ill > 0.5) & (np.arange(len(images)) % 2 == 0)  # of the old some cases go unseen
    score = np.where((ill > 0.5) & ~wrong, 0.9, 0.1).astype(np.float32)
    scores = np.repeat(score[:, None, None], 3, axis=1)
    younger, older = age_groups(plan, Outputs(scores, np.zeros((len(images), 2), np.float32)), images)
    assert (younger.name, younger.ages_years, younger.may_raise_priority) == ("younger", (10, 50), True)
    assert younger.labels[0].operating_point.sensitivity == 1.0
    assert older.labels[0].calibration != younger.labels[0].calibration
    assert not older.may_raise_priority
    assert f"n={int((~old).sum())} " in younger.labels[0].operating_point.chosen_on
    assert f"n={int(old.sum())} " in older.labels[0].operating_point.chosen_on


def test_an_age_group_of_a_domain_that_nobody_has_is_refused() -> None:
    group = {"name": "x", "domains": ["martians"], "ages_years": (1, 2), "target_sensitivity": 0.9}
    with pytest.raises(RecipeError, match="martians"):
        recipe(age_groups=[group | {"may_raise_priority": False}])
