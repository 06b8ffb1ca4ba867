"""Every command does right by a recipe's task or says in a sentence what it is for; no fault is a traceback."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from tests.train.sets import ONE_EPOCH, SIZE, pictures, recipe, write_csv_set
from tests.train.slices import RECIPE as SLICES
from tests.train.slices import make_slices
from training import cli
from training.comparing.start import one_start
from training.comparing.table import markdown
from training.comparing.variants import ComparePlan, Variant, read_comparison
from training.fitting.beginning import began_from, begin_from
from training.fitting.fit import fit_splits
from training.fitting.network import build
from training.fitting.preview_marks import Marked, one_of_each, sheet
from training.networks import imagenet
from training.recipe import RecipeError, parse_recipe
from training.recipe_file import TASKS, task_of
from training.tasks.classification import how_it_was_made
from training.tasks.order import Order
from training.tasks.table import COMMANDS, perform

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore")]
RECIPES = Path(__file__).parents[2] / "training" / "recipes"
EVERY = sorted({name for row in COMMANDS.values() for name in row})
OF_TASK = {
    "classification": RECIPES / "chest-pneumonia-children.toml",
    "detection": RECIPES / "limb-fracture.toml",
    "segmentation": RECIPES / "brain-tumour-flair.toml",
}
SPLIT = "{ train = 0.6, calibration = 0.2, test = 0.2 }"


@pytest.fixture
def told(monkeypatch, capsys):
    """What `opentriage-train` with these arguments says, and its exit code."""

    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["opentriage-train", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out + said.err

    return call


def words_of(said: str) -> str:
    """Without the frame that is drawn around an error."""
    return " ".join(said.replace("│", " ").split())


def unreachable(architecture):
    raise imagenet.WeightsUnavailable(f"ImageNet weights of {architecture} cannot be fetched: no network")


def test_every_task_has_a_recipe_that_says_so_and_every_command_of_the_program_stands_in_the_table():
    assert {task: task_of(path) for task, path in OF_TASK.items()} == {task: task for task in TASKS}
    assert set(COMMANDS) == set(TASKS)
    assert {one.name for one in cli.app.registered_commands} == {*EVERY, "import"}


@pytest.mark.parametrize(
    ("task", "command"), [(task, name) for task in TASKS for name in EVERY if name not in COMMANDS[task]]
)
def test_a_command_that_a_task_has_not_is_refused_in_one_sentence(task, command, told, tmp_path):
    given = {"--data": tmp_path, "--run": tmp_path / "run", "--out": tmp_path / "out", "--package": tmp_path}
    wanted = {one for parameter in _parameters(command) for one in parameter if one in given}
    code, said = told(command, OF_TASK[task], *(word for name in sorted(wanted) for word in (name, given[name])))
    assert code == 2
    assert said.startswith(f"{command} is for classification recipes, and {OF_TASK[task].name} is one for {task}")
    assert "there are fit, preview, export, package" in said
    assert len(said.strip().splitlines()) == 1


def _parameters(command):
    import typer

    return [one.opts for one in typer.main.get_command(cli.app).commands[command].params]


def test_what_is_missing_is_a_sentence_and_exit_code_2(told, tmp_path):
    somewhere = ("--data", tmp_path, "--run", tmp_path / "run")
    code, said = told("fit", tmp_path / "none.toml", *somewhere)
    assert (code, "does not exist" in words_of(said), "Traceback" in said) == (2, True, False)
    code, said = told("fit", OF_TASK["detection"], "--data", tmp_path / "none", "--run", tmp_path)
    assert (code, "does not exist" in words_of(said)) == (2, True)
    for path in OF_TASK.values():
        code, said = told("fit", path, *somewhere)
        assert code == 2
        assert said.strip().endswith("labels.csv: No such file or directory")
        assert len(said.strip().splitlines()) == 1
    broken = tmp_path / "broken.toml"
    broken.write_text("name = ")
    assert told("fit", broken, *somewhere)[1].startswith(f"{broken} is no TOML file")
    broken.write_bytes(b"\xff\xfe\x00")
    assert told("fit", broken, *somewhere)[1].startswith(f"{broken} is no TOML file")
    broken.write_text('task = "regression"')
    assert "task is classification, detection or segmentation, not 'regression'" in told("fit", broken, *somewhere)[1]


def test_a_recipe_that_cannot_be_read_is_refused_below_the_command_line_too(tmp_path):
    with pytest.raises(RecipeError, match="No such file"):
        task_of(tmp_path / "none.toml")
    with pytest.raises(RecipeError, match="Is a directory"):
        task_of(tmp_path)


def test_weights_that_must_be_there_and_are_not_are_a_sentence(told, tmp_path, monkeypatch):
    monkeypatch.setattr(imagenet, "fetch", unreachable)
    write_csv_set(tmp_path / "north")
    (tmp_path / "r.toml").write_text(_toy("weights = 'imagenet'"))
    code, said = told("fit", tmp_path / "r.toml", "--data", tmp_path, "--run", tmp_path / "run")
    assert code == 2
    assert said.strip().endswith("cannot be fetched: no network")
    assert "Traceback" not in said


def _toy(model: str) -> str:
    return f"""
name = "toy"
labels = ["opacity"]
size = {SIZE}
seed = 7
data = [{{ reader = "csv", folder = "north", domain = "north", split = {SPLIT} }}]
[model]
architecture = "small-cnn"
{model}
[fit]
batch = 8
max_lr = 3e-3
device = "cpu"
stages = [{{ size = {SIZE}, epochs = 1 }}]
"""


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("fit",), "RECIPE, --data and --run are missing."),
        (("fit", OF_TASK["detection"]), "--data and --run are missing."),
        (("export", OF_TASK["detection"], "--run", "x"), "--data and --out are missing."),
        (("samples", OF_TASK["detection"], "--data", RECIPES), "--out and --package are missing."),
        (("fit", OF_TASK["detection"], "--data", RECIPES), "'--run'"),
        (
            ("import", "x.pt", "--kind", "torchvision-densenet121", "--out", "y", "--name", "z"),
            "needs --label and --seen-data",
        ),
    ],
)
def test_each_missing_option_is_named(told, words, named):
    code, said = told(*words)
    assert code in (1, 2)
    assert named in words_of(said)


def test_help_is_given_without_anything_else(told):
    assert told("fit", "--help")[0] == 0


def test_a_comparison_without_variants_is_told_what_it_lacks(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text(_toy(""))
    with pytest.raises(RecipeError, match=r"has no \[\[variants\]\].*--variants"):
        read_comparison(path)
    path.write_text(_toy("") + "[[variants]]\nname = 'a'\n[[variants]]\nname = 'a'\n")
    with pytest.raises(RecipeError, match="a name of their own"):
        read_comparison(path)
    path.write_text(_toy("") + "[[variants]]\nnote = 'nameless'\n")
    with pytest.raises(RecipeError, match="number 1:\n  name: Field required"):
        read_comparison(path)


def test_a_preview_draws_masks_along_with_their_slices(tmp_path, told):
    make_slices(tmp_path, {"CS": 4, "DU": 4})
    (tmp_path / "recipe.toml").write_text(SLICES)
    out = tmp_path / "out" / "sheet.png"
    call = ["preview", str(tmp_path / "recipe.toml"), "--data", str(tmp_path), "--out", str(out)]
    assert CliRunner().invoke(cli.app, [*call, "--images", "2", "--draws", "3"], catch_exceptions=False).exit_code == 0
    assert _green(out) > 200


def test_a_preview_draws_boxes_along_with_their_pictures(tmp_path):
    folder = tmp_path / "fracture"
    for name in ("images", "boxes"):
        (folder / name).mkdir(parents=True)
    for i in range(12):
        Image.fromarray(np.full((96, 64), 60 + i, np.uint8)).save(folder / "images" / f"{i}.png")
        (folder / "boxes" / f"{i}.txt").write_text("1 0.5 0.5 0.3 0.2\n" if i % 2 else "")
    rows = "".join(f"{i}.png,{1000 + i}\n" for i in range(12))
    (folder / "labels.csv").write_text("image,source\n" + rows)
    out = tmp_path / "sheet.png"
    perform("preview", Order(OF_TASK["detection"], tmp_path, out=out, images=2, draws=2))
    assert _green(out) > 200


def _green(path):
    with Image.open(path) as sheet:
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    return int(((pixels[..., 1] - pixels[..., 0] > 60) & (pixels[..., 1] - pixels[..., 2] > 40)).sum())


def test_a_row_of_a_preview_is_a_marked_picture_of_its_own_patient(tmp_path):
    rows = one_of_each([True, True, False, True, True], ["a", "a", "b", "c", "d"], 5, seed=1)
    assert len(rows) == 3
    assert 2 not in rows
    assert len(one_of_each([True] * 5, list("abcde"), 2, seed=1)) == 2
    plain = Marked(np.zeros((8, 8)), np.zeros((0, 4), np.float32))
    sheet([[plain], [plain]], ["nothing"], 8, tmp_path / "plain.png")
    assert _green(tmp_path / "plain.png") == 0


@pytest.fixture(scope="module")
def splits():
    return {"train": pictures(24, "north", 1), "calibration": pictures(12, "north", 3)}


def asking(weights, architecture="densenet121", **fit):
    return recipe(
        model={"architecture": architecture, "dropout": 0.1, "attention_ratio": None, "weights": weights},
        fit=ONE_EPOCH | fit,
    )


def test_a_run_that_could_not_fetch_imagenet_begins_at_random_and_says_so(splits, tmp_path, monkeypatch):
    monkeypatch.setattr(imagenet, "fetch", unreachable)
    chosen = asking("imagenet-if-available", "small-cnn")
    fit_splits(chosen, splits, tmp_path / "run")
    noted = json.loads((tmp_path / "run" / "start.json").read_text())
    assert noted["asked_for"] == "imagenet-if-available"
    assert noted["began_from"].startswith("random weights (ImageNet weights of small-cnn cannot be fetched")
    text = how_it_was_made(chosen, tmp_path / "run")
    assert "begun from random weights (ImageNet" in text
    assert "likely to help: ImageNet weights" in text
    with pytest.raises(imagenet.WeightsUnavailable):
        begin_from(build(chosen), asking("imagenet", "small-cnn"), tmp_path / "strict")


def test_a_run_that_fetched_imagenet_says_so_and_one_that_goes_on_from_it_says_both(splits, tmp_path, monkeypatch):
    chosen = asking("imagenet-if-available", "small-cnn")
    trunk = {key: torch.full_like(value, 0.25) for key, value in build(chosen).features.state_dict().items()}
    monkeypatch.setattr(imagenet, "fetch", lambda _: trunk)
    monkeypatch.setitem(imagenet.SOURCES, "small-cnn", (None, ""))
    net = build(chosen)
    assert begin_from(net, chosen, tmp_path / "first") == "ImageNet weights of torchvision"
    assert all(torch.equal(value, trunk[key]) for key, value in net.features.state_dict().items())
    text = how_it_was_made(chosen, tmp_path / "first")
    assert "begun from ImageNet weights" in text
    assert "likely to help: longer" in text
    torch.save(net.state_dict(), tmp_path / "first" / "weights.pt")
    later = asking("none", "small-cnn", init=str(tmp_path / "first" / "weights.pt"))
    fit_splits(later, splits, tmp_path / "second")
    assert began_from(tmp_path / "second") == "the weights of first, which began from ImageNet weights of torchvision"


def test_a_run_that_goes_on_keeps_what_it_noted_and_a_package_fetches_nothing(splits, tmp_path, monkeypatch):
    monkeypatch.setattr(imagenet, "fetch", unreachable)
    chosen = asking("imagenet-if-available", "small-cnn")
    fit_splits(chosen, splits, tmp_path)
    before = (tmp_path / "start.json").read_text()

    def never(_):
        raise AssertionError("fetched without need")

    monkeypatch.setattr(imagenet, "fetch", never)
    fit_splits(chosen, splits, tmp_path)
    build(chosen)
    assert (tmp_path / "start.json").read_text() == before


def test_a_fetch_gives_up_after_a_while(monkeypatch):
    import socket

    seen = []

    def slow(*_, **__):
        seen.append(socket.getdefaulttimeout())
        raise TimeoutError("timed out")

    monkeypatch.setattr(type(imagenet.SOURCES["densenet121"][0]), "get_state_dict", slow)
    with pytest.raises(imagenet.WeightsUnavailable, match="timed out"):
        imagenet.fetch("densenet121")
    assert seen == [imagenet.PATIENCE_S]
    assert socket.getdefaulttimeout() is None


def variants(*architectures, **more):
    return tuple(Variant(name, "", asking("imagenet-if-available", name)) for name in architectures)


def test_variants_of_one_table_all_get_imagenet_weights_or_none_does(monkeypatch):
    fetched = []
    monkeypatch.setattr("training.comparing.start.fetch", fetched.append)
    six = one_start((*variants("resnet50", "densenet121"), Variant("bare", "", asking("none"))))
    assert [one.recipe.model.weights for one in six] == ["imagenet", "imagenet", "none"]
    assert fetched == ["resnet50", "densenet121"]

    def some(architecture):
        if architecture == "densenet121":
            unreachable(architecture)

    monkeypatch.setattr("training.comparing.start.fetch", some)
    assert {one.recipe.model.weights for one in one_start(variants("resnet50", "densenet121"))} == {"none"}
    monkeypatch.setattr("training.comparing.start.fetch", imagenet.fetch)
    assert {one.recipe.model.weights for one in one_start(variants("resnet50", "vit-small"))} == {"none"}


def test_the_table_says_what_its_variants_began_from():
    def result(name, **more):
        cost = {"training": 1.0, "inference": 1.0}
        return {"name": name, "note": "", "images": {}, "domains": {}, "parameters": 1, "cpu_ms_per_image": cost} | more

    plan = ComparePlan(budget="One epoch.")
    assert "Begun: all from random weights." in markdown(plan, [result("a", began_from="random weights")] * 2)
    mixed = [result("a", began_from="random weights"), result("b", began_from="the weights of c")]
    assert "Begun: a from random weights; b from the weights of c." in markdown(plan, mixed)
    assert "Begun" not in markdown(plan, [result("a")])


def test_an_architecture_that_there_is_none_of_is_a_fault_of_the_recipe():
    with pytest.raises(RecipeError, match="no architecture 'alexnet'"):
        build(recipe(model={"architecture": "alexnet"}))


def test_a_recipe_may_name_the_task_it_has_by_default():
    fields = recipe().model_dump(mode="json")
    assert parse_recipe(fields | {"task": "classification"}) == parse_recipe(fields)
    with pytest.raises(RecipeError, match="is a recipe for detection"):
        parse_recipe(fields | {"task": "detection"})
