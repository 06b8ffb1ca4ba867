"""Every option of a recipe is explained in one file; those that no shipped recipe uses do what they say in a fit."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import BaseModel

from tests.train.sets import ONE_EPOCH, SIZE, pictures, recipe, write_csv_set
from training.data.images import join
from training.fitting.curves import read_curve
from training.fitting.fit import Run, fit, fit_splits, read_splits
from training.recipe import AugmentPlan, LossPlan, ModelPlan, PretrainPlan, SamplerPlan, read_recipe

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore")]
EXAMPLE = Path(__file__).parents[2] / "training" / "recipes" / "every-option.toml"
FIT = ONE_EPOCH | {"ema_decay": 0.5}
ELSEWHERE = ("inference.",)  # the manifest's own parts are explained there


@pytest.fixture(scope="module")
def splits():
    """Three quarters of the north have the finding, a quarter of the south."""
    train = join([pictures(48, "north", 1, 0.75), pictures(24, "south", 2, 0.25)])
    return {"train": train, "calibration": join([pictures(12, "north", 3), pictures(12, "south", 4)])}


def unsaid(part: BaseModel, where: str = "") -> set[str]:
    """The options that no part of the example names, by their dotted name."""
    found = {f"{where}{name}" for name in type(part).model_fields if name not in part.model_fields_set}
    for name in part.model_fields_set:
        value = getattr(part, name)
        inside = value if isinstance(value, tuple) else (value,)
        own = [one for one in inside if isinstance(one, BaseModel) and not type(one).__module__.startswith(ELSEWHERE)]
        if own:
            found |= set.intersection(*(unsaid(one, f"{where}{name}.") for one in own))
    return found


def test_the_example_names_every_option_and_shows_the_defaults():
    example = read_recipe(EXAMPLE)
    assert unsaid(example) == set()
    defaults = (ModelPlan(), SamplerPlan(), LossPlan(), AugmentPlan(), PretrainPlan())
    assert (example.model, example.sampler, example.loss, example.augment, example.pretrain) == defaults


def test_the_example_offers_every_choice():
    text = EXAMPLE.read_text()
    words = [
        choice for kind in _parts() for field in kind.model_fields.values() for choice in _choices(field.annotation)
    ]
    assert [word for word in words if word not in text] == []


def _parts():
    from training import recipe as module

    kinds = [one for one in vars(module).values() if isinstance(one, type) and issubclass(one, BaseModel)]
    return [kind for kind in kinds if kind.__module__ == "training.recipe"]


def _choices(annotation):
    from typing import Literal, get_args, get_origin

    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [choice for part in get_args(annotation) for choice in _choices(part)]


def losses(plan, splits, out):
    fit_splits(plan, splits, out)
    return [line["loss"] for line in read_curve(out / "curve.csv")]


def test_focal_loss_is_fitted_and_is_not_cross_entropy(splits, tmp_path):
    plain = losses(recipe(fit=FIT), splits, tmp_path / "bce")
    focal = losses(recipe(fit=FIT, loss={"kind": "focal", "gamma": 2.0}), splits, tmp_path / "focal")
    easier = losses(recipe(fit=FIT, loss={"kind": "focal", "gamma": 0.0}), splits, tmp_path / "gamma0")
    assert focal[0] < 0.9 * plain[0]
    assert easier == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize(("method", "images"), [("over", 4 * 36), ("under", 4 * 6)])
def test_an_epoch_of_a_fit_is_as_long_as_its_sampler_makes_it(splits, tmp_path, monkeypatch, method, images):
    plan = recipe(fit=FIT, sampler={"method": method, "domains": "balanced", "classes": "balanced"})
    seen: list[int] = []
    look = Run.look
    monkeypatch.setattr(Run, "look", lambda run, index, *rest: seen.extend(index.tolist()) or look(run, index, *rest))
    fit_splits(plan, splits, tmp_path)
    assert len(seen) == images
    drawn = splits["train"].take(np.array(seen))
    assert float(drawn.labels.mean()) == 0.5
    assert (drawn.column("domain") == "south").mean() == 0.5
    assert (tmp_path / "distribution.txt").read_text().count(f"sampler {method}") == 1


@pytest.fixture
def hospitals(tmp_path):
    """A table with a column for the hospital: patients 0 to 29 of one, the others of two more."""
    write_csv_set(tmp_path / "north")
    table = tmp_path / "north" / "labels.csv"
    head, *rows = table.read_text().splitlines()
    named = [f"{row},{('A', 'B', 'C')[min(i // 30, 1) + (i > 44)]}" for i, row in enumerate(rows)]
    table.write_text("\n".join([f"{head},Hospital", *named]) + "\n")
    return tmp_path


def one_set(**more):
    split = {"train": 0.7, "calibration": 0.2, "test": 0.1}
    return [{"reader": "csv", "folder": "north", "domain": "north", "split": split} | more]


def test_an_institution_that_is_held_out_of_a_fit_is_its_whole_test(hospitals, tmp_path):
    held = one_set(columns={"site": "Hospital"}, hold_out={"column": "site", "value": "B"}, uncertain="ones")
    plan = recipe(data=held, fit=FIT)
    parts = read_splits(plan, hospitals)
    assert set(parts["test"].column("site").tolist()) == {"B"}
    assert not {"B"} & {*parts["train"].column("site").tolist(), *parts["calibration"].column("site").tolist()}
    fit(plan, hospitals, tmp_path / "run")
    assert '"test split"' in (tmp_path / "run" / "distribution.json").read_text()
    assert (tmp_path / "run" / "weights.pt").exists()


def test_a_fold_is_fitted_from_disk_and_its_test_trains_nothing(hospitals, tmp_path):
    plans = [recipe(data=one_set(folds=3, fold=k, uncertain="ones"), fit=FIT) for k in range(3)]
    tests = [set(read_splits(plan, hospitals)["test"].groups) for plan in plans]
    assert len(set.union(*tests)) == sum(map(len, tests)) == 60
    fit(plans[0], hospitals, tmp_path / "run")
    assert (tmp_path / "run" / "weights.pt").exists()


def test_everything_at_once_is_fitted_stops_early_and_keeps_its_best(hospitals, tmp_path):
    """head_first, patience, keep, metadata, focal loss and oversampling in one run, from disk."""
    plan = recipe(
        data=one_set(uncertain="ones"),
        model={
            "architecture": "small-cnn",
            "dropout": 0.1,
            "attention_ratio": None,
            "metadata": ["age", "sex", "view"],
        },
        sampler={"method": "over", "classes": "balanced"},
        loss={"kind": "focal"},
        fit=FIT
        | {"stages": [{"size": SIZE, "epochs": 12}], "head_first": {"epochs": 1, "max_lr": 1e-2}}
        | {"patience_epochs": 1, "keep": "best", "schedule": "plateau"},
    )
    net = fit(plan, hospitals, tmp_path / "run")
    lines = read_curve(tmp_path / "run" / "curve.csv")
    assert lines[0]["lr"] == 1e-2
    last_stage = [line["calibration_auc"] for line in lines[1:]]
    assert len(last_stage) < 12
    assert last_stage.index(max(last_stage)) == len(last_stage) - 2
    best = torch.load(tmp_path / "run" / "best.pt", weights_only=True)
    assert all(torch.equal(value, best[key]) for key, value in net.state_dict().items())
    assert net.metadata is not None
