"""A fit learns, follows its seed, goes on where it was cut off, and keeps what its recipe says."""

import math

import numpy as np
import pytest
import torch

from tests.train.sets import ONE_EPOCH, SIZE, pictures, recipe
from training.data.images import join
from training.fitting import fit as fitting
from training.fitting.curves import aucs, read_curve
from training.fitting.fit import Best, Run, fit_splits
from training.fitting.network import build, known_of, pixels_of, predict, start, to_range
from training.fitting.phases import begin, cosine, epochs_of
from training.recipe import RecipeError

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore")]
FIT = ONE_EPOCH | {"ema_decay": 0.5, "stages": [{"size": SIZE, "epochs": 2}]}


@pytest.fixture(scope="module")
def splits():
    train = join([pictures(24, "north", 1), pictures(16, "south", 2)])
    train.labels[3] = np.nan
    return {"train": train, "calibration": join([pictures(12, "north", 3), pictures(12, "south", 4)])}


def plan(**changes):
    return recipe(fit=FIT | changes)


def same(one, other) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_it_learns_what_there_is_to_learn(splits, tmp_path):
    chosen = plan(stages=[{"size": SIZE, "epochs": 6}])
    net = fit_splits(chosen, splits, tmp_path)
    lines = read_curve(tmp_path / "curve.csv")
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert lines[-1]["auc_north_opacity"] > 0.9
    assert lines[-1]["calibration_auc"] == pytest.approx(
        (lines[-1]["auc_north_opacity"] + lines[-1]["auc_south_opacity"]) / 2
    )
    assert predict(net, splits["calibration"], chosen, SIZE).shape == (24, 1)
    assert (tmp_path / "curve.png").stat().st_size > 5000
    assert (tmp_path / "distribution.txt").exists()


@pytest.mark.parametrize("schedule", ["one-cycle", "cosine", "plateau"])
def test_a_run_that_was_cut_off_ends_as_one_that_was_not(splits, tmp_path, schedule, monkeypatch):
    chosen = plan(schedule=schedule, head_first={"epochs": 1, "max_lr": 1e-2})
    whole = fit_splits(chosen, splits, tmp_path / "whole")
    save = Run.save

    def cut(run, number):
        save(run, number)
        if number == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "save", cut)
    with pytest.raises(KeyboardInterrupt):
        fit_splits(chosen, splits, tmp_path / "cut")
    assert not (tmp_path / "cut" / "weights.pt").exists()
    monkeypatch.undo()
    assert same(whole, fit_splits(chosen, splits, tmp_path / "cut"))
    lines = read_curve(tmp_path / "cut" / "curve.csv")
    assert [line["epoch"] for line in lines] == [0.0, 1.0, 2.0]


def test_another_seed_is_another_run(splits, tmp_path):
    one = fit_splits(plan(), splits, tmp_path / "one")
    other = fit_splits(plan().model_copy(update={"seed": 8}), splits, tmp_path / "other")
    assert not same(one, other)


def test_a_run_does_not_go_on_with_another_recipe(splits, tmp_path):
    fit_splits(plan(), splits, tmp_path)
    with pytest.raises(RecipeError, match="another recipe"):
        fit_splits(plan(max_lr=1e-3), splits, tmp_path)


def test_the_head_comes_first_and_leaves_the_trunk_alone(splits, tmp_path):
    chosen = plan(head_first={"epochs": 1, "max_lr": 1e-2})
    run = Run(chosen, splits, tmp_path)
    before = {key: value.clone() for key, value in run.net.state_dict().items()}
    assert [(epoch.head_only, epoch.phase) for epoch in run.epochs] == [(True, 0), (False, 1), (False, 1)]
    run.one(0)
    changed = {key.split(".")[0] for key, value in run.net.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"classifier"}
    run.one(1)
    changed = {key.split(".")[0] for key, value in run.net.state_dict().items() if not torch.equal(value, before[key])}
    assert "features" in changed


def test_it_stops_early_in_the_last_stage_and_keeps_the_best_epoch(splits, tmp_path, monkeypatch):
    told = iter([0.99, 0.6, 0.9, 0.8, 0.7, 0.95])
    monkeypatch.setattr(fitting, "aucs", lambda *_: {"calibration_auc": next(told)})
    kept = {}
    write = fitting.write

    def watched(state, path):
        if path.name == "best.pt":
            kept["best"] = {key: value.clone() for key, value in state.items()}
        write(state, path)

    monkeypatch.setattr(fitting, "write", watched)
    chosen = plan(stages=[{"size": SIZE, "epochs": 1}, {"size": SIZE, "epochs": 5}], patience_epochs=2, keep="best")
    net = fit_splits(chosen, splits, tmp_path)
    assert [line["calibration_auc"] for line in read_curve(tmp_path / "curve.csv")] == [0.99, 0.6, 0.9, 0.8, 0.7]
    assert all(torch.equal(value, kept["best"][key]) for key, value in net.state_dict().items())


def test_earlier_weights_start_a_run_and_a_strange_head_keeps_its_random_start(splits, tmp_path):
    fit_splits(plan(), splits, tmp_path)
    other = recipe(labels=["opacity", "fluid"])
    net = build(other)
    head = net.classifier.weight.clone()
    assert start(net, tmp_path / "weights.pt") == ["classifier.bias", "classifier.weight"]
    assert torch.equal(net.classifier.weight, head)
    saved = torch.load(tmp_path / "weights.pt", weights_only=True)
    assert all(torch.equal(value, saved[key]) for key, value in net.state_dict().items() if key.startswith("features"))
    with pytest.raises(RecipeError, match="another architecture"):
        start(build(recipe(model={"architecture": "resnet50"})), tmp_path / "weights.pt")
    with pytest.raises(RecipeError, match="no file"):
        start(net, tmp_path / "nowhere.pt")


def test_weights_are_never_a_pickle_that_runs_code(tmp_path):
    torch.save({"features.0.weight": print}, tmp_path / "bad.pt")
    with pytest.raises(Exception, match="weights_only"):
        start(build(recipe()), tmp_path / "bad.pt")


def test_age_sex_and_view_reach_a_network_in_training_and_no_figure_of_it(splits, tmp_path):
    chosen = plan().model_copy(
        update={
            "model": recipe(
                model={"architecture": "small-cnn", "attention_ratio": None, "metadata": ["age", "sex"]}
            ).model
        }
    )
    net = fit_splits(chosen, splits, tmp_path)
    known = splits["calibration"]
    unknown = type(known)(known.names, known.pixels, known.labels, known.groups)
    assert np.array_equal(predict(net, known, chosen, SIZE), predict(net, unknown, chosen, SIZE))
    images, told = to_range(pixels_of(known, np.arange(8), torch.device("cpu")), chosen), known_of(known, chosen)
    with torch.inference_mode():
        assert not torch.equal(net(images, told[:8]), net(images))


def test_without_averaging_the_last_weights_are_kept(splits, tmp_path):
    run = Run(plan(ema_decay=0.0), splits, tmp_path)
    run.one(0)
    assert same(run.ema, run.net)


def test_auc_is_counted_by_domain_over_what_is_known():
    images = join([pictures(6, "north"), pictures(6, "south")])
    images.labels[0] = np.nan
    logits = np.concatenate([images.labels[:6], 1 - images.labels[6:]])
    logits[0] = 5.0  # of an image nobody knows about: taken for one without the finding, it would be an error
    found = aucs(images, logits, recipe())
    assert found == {"auc_north_opacity": 1.0, "auc_south_opacity": 0.0, "calibration_auc": 0.5}
    images.labels[:] = 1.0
    assert math.isnan(aucs(images, logits, recipe())["calibration_auc"])


def test_a_cosine_warms_up_and_ends_low():
    rates = [cosine(step, 100) for step in range(100)]
    assert max(rates) == pytest.approx(1.0, abs=0.01)
    assert rates[0] < 0.3
    assert rates[-1] < 0.01


def test_the_rate_falls_on_a_plateau(splits):
    chosen = plan(schedule="plateau")
    rate = begin(build(chosen), chosen.fit, epochs_of(chosen.fit)[0], 10)
    for auc in (0.9, 0.8, 0.8, 0.8):
        rate.after_epoch(auc)
    assert rate.optimiser.param_groups[0]["lr"] == pytest.approx(0.3 * 3e-3)


def test_nothing_is_the_best_before_there_was_anything():
    assert Best().epoch == -1
