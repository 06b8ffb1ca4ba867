"""A comparison changes one thing at a time, gives every variant the same patients, and goes on where it was cut off."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import training.comparing.run as comparing
from training.cli import app
from training.comparing.figures import operating_point, parts_of
from training.comparing.run import few
from training.comparing.table import markdown
from training.comparing.variants import ComparePlan, overridden, read_comparison
from training.data.images import LabelledImages
from training.recipe import RecipeError

pytestmark = pytest.mark.filterwarnings("ignore")

RECIPES = Path(__file__).parents[2] / "training" / "recipes"
RECIPE = """
name = "tiny"
labels = ["pneumonia"]
size = 32
seed = 1

[[data]]
reader = "chest_pneumonia"
folder = "children"
domain = "children"
split = { train = 0.4, calibration = 0.3, test = 0.3 }

[[data]]
reader = "chest_adult"
folder = "adults"
domain = "adults"
split = { train = 0.2, calibration = 0.4, test = 0.4 }

[model]
architecture = "small-cnn"

[fit]
batch = 8
max_lr = 1e-3
stages = [{ size = 32, epochs = 1 }]

[compare]
title = "Tiny"
budget = "One epoch."
train_images = 40
published_domain = "children"
published = { "somebody" = [0.9, 0.8] }

[[variants]]
name = "plain"

[[variants]]
name = "cropped"
note = "borders cut"
set = { "augment.border_crop" = 0.2, "data.1.share" = 2.0 }
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for name in ("children", "adults"):
        (folder / name / "images").mkdir(parents=True)
        with (folder / name / "labels.csv").open("w", newline="") as file:
            out = csv.writer(file)
            out.writerow(
                ["image", "label", "subtype", "patient_group"]
                if name == "children"
                else ["image", "patient_id", "age_years", "sex", "view", "findings"]
            )
            for i in range(150):
                ill = i % 2
                grey = np.clip(rng.normal(90 + 70 * ill, 30, (32, 32)), 0, 255).astype(np.uint8)
                Image.fromarray(grey).save(folder / name / "images" / f"{i}.png")
                if name == "children":
                    out.writerow([f"{i}.png", "pneumonia" if ill else "normal", "", f"p{i // 2}"])
                else:
                    finding = "Pneumonia" if ill else "No Finding"
                    out.writerow([f"{i}.png", i, 50, "F", ("AP", "PA")[i // 2 % 2], finding])
    return folder


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE)
    return path


def test_compare_trains_each_variant_once_and_says_what_they_are_worth(data, recipe, tmp_path, monkeypatch):
    seen = []
    fit = comparing.fit_splits
    monkeypatch.setattr(
        comparing, "fit_splits", lambda plan, splits, out: seen.append((out.name, splits)) or fit(plan, splits, out)
    )
    call = ["compare", str(recipe), "--data", str(data), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, call, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert [name for name, _ in seen] == ["plain", "cropped"]
    assert all(seen[0][1][part].names == seen[1][1][part].names for part in ("train", "calibration", "test"))
    text = (tmp_path / "out" / "compare.md").read_text()
    for words in ("## Tiny", "One epoch.", "**children**", "**adults**", "**adults AP**", "**adults PA**"):
        assert words in text
    assert "| *somebody (published)* | | 0.900 | 0.800 |" in text
    assert (tmp_path / "out" / "compare.png").read_bytes().startswith(b"\x89PNG")
    results = json.loads((tmp_path / "out" / "compare.json").read_text())["results"]
    assert results[0]["domains"]["children"]["auc"]["value"] > 0.5
    assert results[0]["cpu_ms_per_image"]["training"] > 0

    assert CliRunner().invoke(app, call).exit_code == 0
    assert len(seen) == 2, "finished variants are not trained again"
    (tmp_path / "out" / "cropped" / "result.json").unlink()
    assert CliRunner().invoke(app, call).exit_code == 0
    assert [name for name, _ in seen] == ["plain", "cropped", "cropped"]
    recipe.write_text(RECIPE.replace("max_lr = 1e-3", "max_lr = 2e-3"))
    assert CliRunner().invoke(app, call).exit_code == 0
    assert len(seen) == 5, "another recipe is another comparison"


def test_the_table_of_architectures_has_the_order_of_the_shipped_recipe_from_plain_to_transformer():
    plan, variants = read_comparison(RECIPES / "compare-architectures.toml")
    names = [variant.name for variant in variants]
    densely = ["densenet121", "densenet121-attention"]
    assert names == ["small-cnn", "vgg16", "resnet50", *densely, "efficientnet-b0", "efficientnet-b4", "vit-small"]
    cost = {"training": 1.0, "inference": 1.0}
    results = [
        {"name": name, "note": "", "images": {}, "domains": {}, "parameters": 1, "cpu_ms_per_image": cost}
        for name in names
    ]
    text = markdown(plan, results)
    assert [line.split()[1] for line in text.splitlines() if line.endswith("| 1.0 | 1.0 |")] == names
    assert "at this budget, by point estimate:" in text


def test_a_variant_changes_what_it_names_and_nothing_else(recipe):
    _, (plain, cropped) = read_comparison(recipe)
    assert cropped.recipe.augment.border_crop == 0.2
    assert cropped.recipe.data[1].share == 2.0
    same = {"augment": plain.recipe.augment, "data": plain.recipe.data}
    assert cropped.recipe.model_copy(update=same) == plain.recipe


def test_a_change_that_leads_nowhere_is_refused(recipe):
    with pytest.raises(RecipeError, match=r"data\.7\.share leads nowhere"):
        overridden({"data": [{}]}, {"data.7.share": 1.0}, "here")
    recipe.write_text(RECIPE.replace("augment.border_crop", "augment.boarder_crop"))
    with pytest.raises(RecipeError, match="variant cropped"):
        read_comparison(recipe)
    recipe.write_text(RECIPE.replace('"cropped"', '"plain"'))
    with pytest.raises(RecipeError, match="a name of their own"):
        read_comparison(recipe)


def test_variants_may_stand_in_a_file_of_their_own(recipe, tmp_path):
    other = tmp_path / "other.toml"
    other.write_text('[[variants]]\nname = "vit"\nset = { "model.architecture" = "vit-small" }\n')
    plan, variants = read_comparison(recipe, other)
    assert [variant.name for variant in variants] == ["vit"]
    assert variants[0].recipe.model.architecture == "vit-small"
    assert plan.title == "Tiny"


def images(n, groups, domains, views):
    labels = np.tile([[0.0], [1.0]], (n // 2, 1)).astype(np.float32)
    columns = {"domain": np.array(domains), "view": np.array(views)}
    return LabelledImages(tuple(map(str, range(n))), np.zeros((n, 4, 4), np.uint8), labels, tuple(groups), columns)


def test_a_subset_keeps_whole_patients_and_is_the_same_every_time():
    whole = images(40, [f"p{i // 4}" for i in range(40)], ["a"] * 20 + ["b"] * 20, ["AP"] * 40)
    some = few(whole, 9, "salt")
    assert some.names == few(whole, 9, "salt").names
    assert len(some) == 16  # two patients of four images in each domain
    assert all(some.groups.count(group) == 4 for group in set(some.groups))
    assert few(whole, 0, "salt") is whole


def test_the_operating_point_lies_where_both_shares_are_greatest():
    truth = np.array([0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    assert operating_point(truth, np.array([0.1, 0.2, 0.3, 0.7, 0.8, 0.9])) == pytest.approx(0.5)
    assert operating_point(truth, np.array([0.1, 0.2, 0.75, 0.7, 0.8, 0.9])) == pytest.approx(0.45)


def test_views_stand_apart_where_a_domain_has_several():
    mixed = images(6, "abcdef", ["kid"] * 2 + ["adult"] * 4, ["AP", "AP", "AP", "PA", "AP", "PA"])
    found = {name: chosen.tolist() for name, _, chosen in parts_of(mixed)}
    assert list(found) == ["kid", "adult", "adult AP", "adult PA"]
    assert found["adult PA"] == [False, False, False, True, False, True]


def test_what_was_published_is_reached_only_by_both_shares():
    def row(sensitivity, specificity):
        auc = {"value": 0.9, "bootstrap95_by_patient": [0.8, 1.0], "n": 20, "patients": 20}
        shares = {"sensitivity": sensitivity, "specificity": specificity}
        return {"auc": auc} | {name: {"value": value, "wilson95": [0.0, 1.0]} for name, value in shares.items()}

    costs = {
        "parameters": 1,
        "cpu_ms_per_image": {"training": 1.0, "inference": 1.0},
        "note": "",
        "images": {"train": 1},
    }
    results = [
        costs | {"name": "one-sided", "domains": {"kids": row(0.99, 0.5)}},
        costs | {"name": "good", "domains": {"kids": row(0.95, 0.95)}},
    ]
    plan = ComparePlan(
        published={"them": (0.9, 0.95), "others": (0.96, 0.4), "best": (1.0, 1.0)}, published_domain="kids"
    )
    text = markdown(plan, results)
    assert "- them (published: sensitivity 0.900, specificity 0.950): both reached by good\n" in text
    assert "both reached by one-sided\n" in text
    assert "specificity 1.000): both reached by none" in text


def test_a_domain_without_figures_is_an_empty_cell():
    auc = {"value": 0.9, "bootstrap95_by_patient": None, "n": 20, "patients": 20}
    costs = {
        "parameters": 1,
        "cpu_ms_per_image": {"training": 1.0, "inference": 1.0},
        "note": "",
        "images": {"train": 1},
    }
    text = markdown(
        ComparePlan(), [costs | {"name": "a", "domains": {"x": {"auc": auc}}}, costs | {"name": "b", "domains": {}}]
    )
    assert "| a | 0.900 |  |  |" in text
    assert "| b | | | |" in text
