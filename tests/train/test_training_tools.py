"""Preview, self-supervised start, and the comparison of what uncertain labels are taken for."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from tests.train.sets import ONE_EPOCH, SIZE, pictures, recipe, write_csv_set
from training.cli import app
from training.data.images import join
from training.fitting import pretrain as pretraining
from training.fitting.network import build, start
from training.fitting.pretrain import pretrain, vicreg
from training.fitting.preview import chosen_rows, preview
from training.fitting.uncertain import compare_policies
from training.recipe import RecipeError

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore")]
PRETRAIN = {"size": SIZE, "epochs": 2, "batch": 16, "projector": 16}
ONE = [
    {"reader": "csv", "folder": "north", "domain": "north", "split": {"train": 0.5, "calibration": 0.2, "test": 0.3}}
]


@pytest.fixture(scope="module")
def train():
    return join([pictures(24, "north", 1), pictures(24, "south", 2)])


def test_a_sheet_shows_each_domain_with_and_without(train, tmp_path):
    rows = train.take(chosen_rows(train, 4, 0))
    assert rows.column("domain").tolist() == ["north"] * 4 + ["south"] * 4
    assert rows.labels[:, 0].tolist() == [1, 0] * 4
    preview(recipe(), {"train": train}, tmp_path / "sheet.png", per_domain=2, n=3)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert min(sheet.size) > 400


def test_the_pictures_alone_give_a_start_that_no_label_has_touched(train, tmp_path):
    plan = recipe(pretrain=PRETRAIN, fit=ONE_EPOCH)
    weights = pretrain(plan, train, tmp_path / "a")
    bare = train.take(np.arange(len(train)))
    bare.labels[:] = np.nan
    other = torch.load(pretrain(plan, bare, tmp_path / "b"), weights_only=True)
    saved = torch.load(weights, weights_only=True)
    assert all(torch.equal(value, other[key]) for key, value in saved.items())
    net = build(plan)
    assert start(net, weights) == ["classifier.bias", "classifier.weight"]
    assert len((tmp_path / "a" / "pretrain.csv").read_text().splitlines()) == 3


def test_a_pretraining_that_was_cut_off_goes_on(train, tmp_path, monkeypatch):
    plan = recipe(pretrain=PRETRAIN, fit=ONE_EPOCH)
    whole = torch.load(pretrain(plan, train, tmp_path / "whole"), weights_only=True)
    keep = pretraining.keep

    def cut(path, epoch, state):
        keep(path, epoch, state)
        raise KeyboardInterrupt

    monkeypatch.setattr(pretraining, "keep", cut)
    with pytest.raises(KeyboardInterrupt):
        pretrain(plan, train, tmp_path / "cut")
    monkeypatch.undo()
    again = torch.load(pretrain(plan, train, tmp_path / "cut"), weights_only=True)
    assert all(torch.equal(value, again[key]) for key, value in whole.items())
    lines = (tmp_path / "cut" / "pretrain.csv").read_text().splitlines()[1:]
    assert [line.split(",")[0] for line in lines] == ["0", "1"]


def test_vicreg_punishes_collapse_and_rewards_likeness():
    z = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))
    alike, collapsed = vicreg(z, z), vicreg(torch.zeros(256, 8), torch.zeros(256, 8))
    strangers = vicreg(z, torch.randn(256, 8, generator=torch.Generator().manual_seed(1)))
    redundant = vicreg(z[:, :1].expand(-1, 8), z[:, :1].expand(-1, 8))
    assert alike < min(collapsed, strangers, redundant)


def test_both_policies_are_counted_and_fitted_on_the_same_patients(tmp_path):
    write_csv_set(tmp_path / "north", n=60)
    plan = recipe(data=ONE, fit=ONE_EPOCH)
    report = compare_policies(plan, tmp_path, tmp_path / "run", ("ones", "zeros", "ignore"))
    counts = {name: entry["train"][0] for name, entry in report["policies"].items()}
    uncertain = counts["ignore"]["unknown"]
    assert uncertain > 3
    assert counts["ones"]["with_it"] == counts["ignore"]["with_it"] + uncertain
    assert counts["zeros"]["without"] == counts["ignore"]["without"] + uncertain
    assert counts["ones"]["unknown"] == 0
    aucs = [entry["auc"]["opacity"] for entry in report["policies"].values()]
    assert len({auc["n"] for auc in aucs}) == 1
    text = (tmp_path / "run" / "uncertain.md").read_text()
    assert text.count("| opacity |") == 3
    assert json.loads((tmp_path / "run" / "uncertain.json").read_text()) == report


def test_a_recipe_without_uncertain_labels_is_refused(tmp_path):
    data = [ONE[0] | {"reader": "chest_adult"}]
    with pytest.raises(RecipeError, match="no label is uncertain"):
        compare_policies(recipe(data=data), tmp_path, tmp_path / "run")


def test_the_commands_are_there():
    said = CliRunner().invoke(app, ["--help"]).output
    assert all(name in said for name in ("fit", "preview", "pretrain", "uncertain", "package"))
