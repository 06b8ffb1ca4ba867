"""Several runs become one package: each a graph of its own, and what is calibrated is what the node says with all."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from inference.findings import calibrate
from inference.manifest import read_manifest
from inference.package import load_package
from inference.verify import verify
from tests.train.sets import ONE_EPOCH, SIZE, recipe, write_csv_set
from training.fitting.fit import fit
from training.packaging import members
from training.packaging.calibrate import choose_calibration
from training.packaging.package import input_spec, splits_of, train_features
from training.recipe import RecipeError
from training.tasks import classification, table
from training.tasks.order import Order
from validation.judge import Judge

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(600)]
CODE = {"value": "128477000", "scheme": "SCT", "meaning": "Abnormal finding"}
PACKAGE = {
    "version": "0.1.0",
    "created": "2026-11-21",
    "intended_use": "Tests.",
    "not_for": "Anybody.",
    "weights_licence": "CC0-1.0",
    "may_raise_priority": False,
    "sources": [{"name": "Made up", "licence": "CC0"}],
    "reads": {"modalities": ["CR", "DX"], "body_parts": ["CHEST"], "views": ["PA", "AP"], "min_side_pixels": 16},
    "codes": [{"label": "opacity", "code": CODE}],
    "test_time": ["as_is", "mirrored"],
}
SPLIT = {"train": 0.4, "calibration": 0.3, "test": 0.3}
COLUMNS = [{"reader": "csv", "folder": "north", "domain": "north", "split": SPLIT, "uncertain": "zeros"}]
MODEL = {"architecture": "small-cnn", "dropout": 0.5, "attention_ratio": None, "mc_passes": 6, "metadata": ["age"]}
PASSES = 6 * 2 * 2  # masks, views, members


def plan(**changes):
    return recipe(**({"data": COLUMNS, "model": MODEL, "fit": ONE_EPOCH, "package": PACKAGE} | changes))


@pytest.fixture(scope="module")
def made(tmp_path_factory, one_thread):
    """Two runs of one recipe but for the seed, and the package of both."""
    root = tmp_path_factory.mktemp("ensemble")
    write_csv_set(root / "north", 160)
    for image in (root / "north").rglob("*.jpg"):
        with Image.open(image) as picture:
            picture.resize((64, 64)).save(image)
    for seed, run in enumerate(("one", "other")):
        fit(plan(seed=seed), root, root / run)
    path = root / "toy.json"  # what a TOML file would hold, read by the fixture alone
    order = Order(path, root, root / "one", root / "out", 1, members=(root / "other",))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classification, "read_recipe", lambda _: plan(seed=0))
        classification.package(order)
    return root, root / "out" / "toy" / "0.1.0"


def test_each_run_is_a_member_with_masks_of_its_own_and_the_package_verifies(made):
    _, folder = made
    manifest = read_manifest(folder)
    assert verify(folder) == []
    assert manifest.members == ("model.onnx", "model-2.onnx")
    assert manifest.input.test_time == ("as_is", "mirrored")
    assert f"sd over {PASSES} passes" in manifest.uncertainty.text
    masks = [members.load_net(plan(), made[0] / run, i).masks for i, run in enumerate(("one", "other"))]
    assert not torch.equal(*masks)
    with np.load(folder / "golden.npz") as golden:
        assert golden["scores"].shape == (4, PASSES, 1)


def test_what_was_calibrated_is_what_the_node_says_with_all_members(made):
    root, folder = made
    held_out = splits_of(plan(), root).calibration
    package, manifest = load_package(folder), read_manifest(folder)
    spec, spoken = manifest.labels[0], []
    judge = Judge(package, threads=1)
    try:
        said = judge.files(
            [root / one for one in held_out.column("file")], held_out.column("age_years").tolist(), "opacity", "tests"
        )
    finally:
        judge.close()
    own = members.Model([folder / name for name in manifest.members], manifest.input, 1)
    scores = own.look([root / one for one in held_out.column("file")]).scores[..., 0].astype(np.float64)
    assert scores.shape == (len(held_out), PASSES)
    chosen = choose_calibration(scores, held_out.labels[:, 0].astype(np.float64), held_out.groups)
    assert chosen == spec.calibration
    spoken = calibrate(scores, chosen).mean(axis=1)
    np.testing.assert_allclose(said.probability[~said.refused], spoken[~said.refused], atol=1e-5)
    assert (~said.refused).sum() > 0.9 * len(held_out)


def test_the_card_says_what_it_is_made_of_and_that_ages_do_not_reach_it(made):
    _, folder = made
    card, figures = (folder / "MODEL_CARD.md").read_text(), json.loads((folder / "validation.json").read_text())
    assert "An ensemble of 2 networks, each shown each picture as is, mirrored" in card
    assert "this graph takes them as unknown" in card
    size = sum((folder / name).stat().st_size for name in read_manifest(folder).members)
    assert figures["float16_weights"]["bytes"] == size
    assert figures["float16_weights"]["greatest_score_difference"] < 5e-3
    assert "20 MB" not in card


def test_a_package_that_is_larger_than_what_is_shipped_says_so(made, monkeypatch):
    _, folder = made
    assert members.too_large(folder) == ""
    monkeypatch.setattr(members, "SHIPPED_BYTES", 10_000)
    assert members.too_large(folder).startswith("With its members the package has ")


def test_runs_that_are_no_ensemble_are_refused_in_a_sentence(made, tmp_path):
    root, _ = made
    one, other = root / "one", root / "other"
    members.check_runs(plan(seed=5), [one, other])
    with pytest.raises(RecipeError, match="stands twice"):
        members.check_runs(plan(), [one, root / "out" / ".." / "one"])
    with pytest.raises(RecipeError, match=r"no recipe\.json"):
        members.check_runs(plan(), [one, tmp_path])
    salted = [COLUMNS[0] | {"salt": "another"}]
    with pytest.raises(RecipeError, match=r"one cannot be a member: its run differs from the recipe in data"):
        members.check_runs(plan(data=salted), [one, other])
    with pytest.raises(RecipeError, match=r"in model\.dropout"):
        members.check_runs(plan(model=MODEL | {"dropout": 0.3}), [one, other])
    slices = table.__file__.replace("tasks/table.py", "recipes/brain-tumour-flair.toml")
    with pytest.raises(RecipeError, match="--member is for classification recipes"):
        table.perform("package", Order(type(root)(slices), root, one, members=(other,)))


def test_a_package_of_fewer_members_keeps_none_of_those_before(made, tmp_path):
    root, _ = made
    images = np.zeros((2, 1, SIZE, SIZE), np.float32)
    for runs, left in (((root / "one", root / "other"), 2), ((root / "one",), 1)):
        net, spec = members.load_net(plan(), runs[0]), input_spec(plan())
        train_features(net, splits_of(plan(), root).train, plan())
        members.write_members(net, plan(), runs, spec, tmp_path, images, 1)
        assert len(list(tmp_path.glob("*.onnx"))) == left


@pytest.mark.parametrize("views", [["mirrored"], ["as_is", "as_is"], ["as_is", "upside_down"]])
def test_views_that_the_node_would_refuse_are_refused_in_the_recipe(views):
    with pytest.raises(RecipeError, match="test_time"):
        plan(package=PACKAGE | {"test_time": views})
