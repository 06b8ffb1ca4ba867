"""Whatever cuts the patients, none of them crosses."""

import csv
from pathlib import Path

import numpy as np
import pytest

from tests.support.realdata import need_data
from tests.train.sets import pictures, recipe
from training.data.images import LabelledImages, join, split_of
from training.data.splits import k_fold, leave_out, split_set
from training.recipe import RecipeError, read_recipe

SHARES = {"train": 0.6, "calibration": 0.2, "test": 0.2}
ROOT = Path(__file__).parents[2]


def several(n_patients: int = 60) -> LabelledImages:
    """Patients with one to five images at one of three institutions; patient 0 was seen at two."""
    rng = np.random.default_rng(3)
    groups = [f"p{i}" for i in range(n_patients) for _ in range(int(rng.integers(1, 6)))]
    sites = np.array([("CS", "DU", "EZ")[int(group[1:]) % 3] for group in groups])
    sites[0] = "DU" if sites[1] == "CS" else "CS"
    n = len(groups)
    return LabelledImages(
        tuple(map(str, range(n))),
        np.zeros((n, 2, 2), np.uint8),
        np.zeros((n, 1), np.float32),
        tuple(groups),
        {"site": sites},
    )


def nobody_crosses(parts) -> bool:
    seen = [set(part.groups) for part in parts.values()]
    return all(one.isdisjoint(other) for i, one in enumerate(seen) for other in seen[i + 1 :])


def test_no_patient_crosses_a_fold_and_every_image_is_tested_once():
    data = several()
    tested: list[str] = []
    for fold in range(5):
        parts = k_fold(data, 5, fold, SHARES, "x")
        assert nobody_crosses(parts)
        assert sum(len(part) for part in parts.values()) == len(data)
        assert len(set(parts["test"].groups)) == 12
        assert len(parts["calibration"]) > 0
        tested += parts["test"].names
    assert sorted(tested) == sorted(data.names)


def test_an_institution_that_is_left_out_is_wholly_tested_and_none_of_its_patients_trains():
    data = several()
    parts = leave_out(data, "site", "DU", SHARES, "x")
    assert nobody_crosses(parts)
    assert set(parts["test"].column("site").tolist()) == {"DU"}
    assert len(parts["test"]) == int((data.column("site") == "DU").sum())
    assert "DU" not in set(parts["train"].column("site").tolist()) | set(parts["calibration"].column("site").tolist())


def test_a_patient_of_two_institutions_does_not_train_for_either():
    data = several()
    both = data.groups[0]
    assert set(data.column("site")[[group == both for group in data.groups]].tolist()) == {"CS", "DU"}
    for site in ("CS", "DU"):
        parts = leave_out(data, "site", site, SHARES, "x")
        assert both not in set(parts["train"].groups) | set(parts["calibration"].groups)


def test_an_institution_that_nobody_has_is_refused():
    with pytest.raises(RecipeError, match="nobody's site"):
        leave_out(several(), "site", "XX", SHARES, "x")


def test_the_recipe_chooses_the_split():
    plan = recipe().data[0]
    data = pictures(80)
    by_fold = split_set(data, plan.model_copy(update={"folds": 4, "fold": 1}), "toy")
    assert len(by_fold["test"]) == 20
    assert len(split_set(data, plan, "toy")["train"]) != len(by_fold["train"])


def test_joined_sets_keep_what_is_known_of_each():
    bare = LabelledImages(("a",), np.zeros((1, 32, 32), np.uint8), np.zeros((1, 1), np.float32), ("g",))
    both = join([pictures(4), bare])
    assert both.column("sex").tolist() == ["F", "M", "F", "M", ""]
    assert np.isnan(both.column("age_years")[-1])
    assert [len(part) for part in both.by_domain().values()] == [4, 1]


def test_the_children_who_are_tested_are_those_of_the_first_package():
    """Figures of later packages stand beside those of 1.0.0: on the same children."""
    table = need_data("chest_pneumonia/labels.csv")
    plan = next(
        one for one in read_recipe(ROOT / "training/recipes/chest-pneumonia.toml").data if one.domain == "children"
    )
    with table.open(newline="") as file:
        groups = [row["patient_group"] for row in csv.DictReader(file)]
    tested = [group for group in groups if split_of(group, plan.split, plan.salt) == "test"]
    assert (len(tested), len(set(tested))) == (699, 382)
