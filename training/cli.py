"""`opentriage-train`: fit, export, validate, package, samples; one recipe file per model."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from inference.manifest import read_manifest
from training.comparing.run import compare
from training.data.distribution import report
from training.data.splits import read_splits
from training.detection_recipe import is_detection, read_detection_recipe
from training.drawing.samples import readme, write_samples
from training.fitting.curves import read_curve
from training.fitting.detection import fit as fit_detector
from training.fitting.fit import fit
from training.fitting.pretrain import pretrain
from training.fitting.preview import preview
from training.fitting.segment import fit_segmentation
from training.fitting.uncertain import POLICIES, compare_policies
from training.importing.command import import_command
from training.packaging.card import card
from training.packaging.detector_package import package_detector
from training.packaging.package import Splits, pin, splits_of, write_core
from training.packaging.segmenter_package import package_segmenter
from training.packaging.validate import validate
from training.recipe import Recipe, RecipeError, read_recipe
from training.segmentation_recipe import is_segmentation, read_segmentation_recipe

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Fit, compare, export, validate, package and import models; one recipe file for each.",
)

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe, for instance chest-pneumonia.toml.")]
Data = Annotated[Path, typer.Option("--data", help="The folder that holds the image sets.")]
Run = Annotated[Path, typer.Option("--run", help="The run's folder: curve, checkpoint, weights.")]
Out = Annotated[Path, typer.Option("--out", help="Where packages go: OUT/<name>/<version>.")]
Threads = Annotated[int, typer.Option(help="Threads of ONNX Runtime; 0 takes every core.")]
LeaveOut = Annotated[
    str | None, typer.Option("--leave-out", help="Slice models: the institution that is the test and trains nothing.")
]
Folds = Annotated[
    list[Path] | None, typer.Option("--fold", help="Slice models: a packaged run with --leave-out, for the figures.")
]


@app.command("fit")
def fit_command(recipe: RecipeFile, data: Data, run: Run, leave_out: LeaveOut = None) -> None:
    """Train, or go on where RUN/checkpoint.pt stopped. Ends with RUN/weights.pt."""
    if is_segmentation(recipe):
        fit_segmentation(read_segmentation_recipe(recipe), data, run, leave_out)
        return
    _for_slices_only(leave_out, None)
    if is_detection(recipe):
        fit_detector(read_detection_recipe(recipe), data, run)
        return
    fit(read_recipe(recipe), data, run)


@app.command("preview")
def preview_command(
    recipe: RecipeFile,
    data: Data,
    out: Annotated[Path, typer.Option("--out", help="The contact sheet, a PNG.")],
    images: Annotated[int, typer.Option(help="Rows for each data set.")] = 4,
    draws: Annotated[int, typer.Option(help="Columns beside the original.")] = 7,
) -> None:
    """Show what the augmentation really does, and the classes before and after the sampler."""
    plan = read_recipe(recipe)
    splits = read_splits(plan, data)
    report(splits, plan)
    preview(plan, splits, out, images, draws)
    typer.echo(out)


@app.command("pretrain")
def pretrain_command(recipe: RecipeFile, data: Data, run: Run) -> None:
    """Learn from the pictures of the train split without their labels; RUN/weights.pt is then a recipe's fit.init."""
    plan = read_recipe(recipe)
    typer.echo(pretrain(plan, read_splits(plan, data)["train"], run))


@app.command("uncertain")
def uncertain_command(
    recipe: RecipeFile,
    data: Data,
    run: Run,
    policy: Annotated[list[str] | None, typer.Option(help="One of the five, may be repeated; without: all.")] = None,
    fits: Annotated[bool, typer.Option(help="--no-fits: only count the classes.")] = True,
) -> None:
    """Fit a recipe with a CheXpert-style table once for each way to take uncertain labels, and compare them."""
    chosen = [name for name in POLICIES if not policy or name in policy]
    compare_policies(read_recipe(recipe), data, run, chosen, fits)
    typer.echo((run / "uncertain.md").read_text())


@app.command("export")
def export_command(recipe: RecipeFile, data: Data, run: Run, out: Out, threads: Threads = 0) -> None:
    """Write graph, calibration, gate and manifest, without card and figures: for a first look."""
    plan = read_recipe(recipe)
    parity = write_core(plan, run, splits_of(plan, data), _folder(plan, out), threads)
    typer.echo(json.dumps(parity, indent=2))


@app.command("validate")
def validate_command(recipe: RecipeFile, data: Data, run: Run, out: Out, threads: Threads = 0) -> None:
    """Measure an exported package on the test split; write its validation.json and card and pin them."""
    plan = read_recipe(recipe)
    _validate(plan, data, run, _folder(plan, out), splits_of(plan, data), threads)


@app.command("package")
def package_command(
    recipe: RecipeFile,
    data: Data,
    run: Run,
    out: Out,
    threads: Threads = 0,
    leave_out: LeaveOut = None,
    folds: Folds = None,
) -> None:
    """Export and validate: the whole package."""
    if is_segmentation(recipe):
        slices = read_segmentation_recipe(recipe)
        place = out / slices.name / slices.package.version
        figures = package_segmenter(slices, data, run, place, leave_out, tuple(folds or ()), threads)
        typer.echo(json.dumps(figures["test"]["goals"], indent=2))
        return
    _for_slices_only(leave_out, folds)
    if is_detection(recipe):
        detector = read_detection_recipe(recipe)
        folder = out / detector.name / detector.package.version
        typer.echo(json.dumps(package_detector(detector, data, run, folder, threads)["test"], indent=2))
        return
    plan = read_recipe(recipe)
    splits, folder = splits_of(plan, data), _folder(plan, out)
    parity = write_core(plan, run, splits, folder, threads)
    (run / "parity.json").write_text(json.dumps(parity, indent=2) + "\n")
    _validate(plan, data, run, folder, splits, threads)


@app.command("compare")
def compare_command(
    recipe: RecipeFile,
    data: Data,
    out: Annotated[Path, typer.Option("--out", help="Where runs, table and plot go.")],
    variants: Annotated[
        Path | None, typer.Option("--variants", help="A file of [[variants]] in place of the recipe's own.")
    ] = None,
) -> None:
    """Train every variant of a comparison file on the same splits and write compare.md, compare.json, compare.png.

    Finished variants are skipped: the command may be cut off and called again.
    """
    compare(recipe, data, out, variants)
    typer.echo((out / "compare.md").read_text())


@app.command("samples")
def samples_command(
    recipe: RecipeFile,
    data: Data,
    out: Annotated[Path, typer.Option("--out", help="Where the DICOM files go.")],
    package: Annotated[Path, typer.Option("--package", help="The package whose gate and model must agree.")],
) -> None:
    """Draw six synthetic chests of invented children that the package's gate accepts and its model reads right."""
    plan = read_recipe(recipe)
    report = write_samples(splits_of(plan, data), package, out)
    (out / "README.md").write_text(readme(report, f"{package.parent.name}/{package.name}"))
    typer.echo(json.dumps(report, indent=2))


app.command("import")(import_command)


def _for_slices_only(leave_out: str | None, folds: list[Path] | None) -> None:
    """An option that would be passed over in silence is refused."""
    if leave_out or folds:
        raise RecipeError("--leave-out and --fold are for slice models; other recipes say hold_out themselves")


def _folder(plan: Recipe, out: Path) -> Path:
    return out / plan.name / plan.shipped().version


def _validate(plan: Recipe, data: Path, run: Path, folder: Path, splits: Splits, threads: int) -> None:
    exact = run / "model-fp32.onnx"
    figures = validate(plan, folder, exact if exact.exists() else None, splits, data, threads)
    parity = run / "parity.json"
    if parity.exists():
        figures["export_parity"] = json.loads(parity.read_text())
    manifest = read_manifest(folder)
    (folder / "validation.json").write_text(json.dumps(figures, indent=2) + "\n")
    (folder / "MODEL_CARD.md").write_text(card(manifest, figures, _how_it_was_made(plan, run)))
    pin(manifest, folder)
    typer.echo(f"{folder / 'MODEL_CARD.md'} says what it is worth")


def _how_it_was_made(plan: Recipe, run: Path) -> str:
    options, model = plan.fit, plan.model
    stages = ", then ".join(f"{stage.epochs} epochs at {stage.size} pixels" for stage in options.stages)
    begun = (
        f"from the weights of {Path(options.init).parent.name}"
        if options.init
        else "random start"
        if model.weights == "none"
        else "ImageNet start"
    )
    text = (
        f"{model.architecture} (one input channel, {begun}) with dropout {model.dropout} ({model.dropout_place})."
        f" {stages}, bfloat16; AdamW, {options.schedule} rate up to {options.max_lr}, batches of {options.batch},"
        f" loss {plan.loss.kind}, class weights {plan.loss.class_weight}, sampler {plan.sampler.method} (domains"
        f" {plan.sampler.domains}, classes {plan.sampler.classes}), label smoothing {plan.loss.label_smoothing},"
        f" weights averaged ({options.ema_decay}). Augmentation crops borders, erases corners and varies exposure, so"
        " that markers and film edges help less; every option stands in the recipe."
    )
    curve = read_curve(run / "curve.csv")
    if curve:
        points = ", ".join(f"{line['epoch']:.0f}: {line['calibration_auc']:.4f}" for line in curve)
        text += f"\n\nAUC on the calibration split after each epoch: {points}."
    return (
        text + "\n\nNot done, and likely to help: ImageNet weights to start from, longer schedules on a GPU, a second"
        " hospital."
    )


def main() -> None:
    """A recipe that cannot be followed ends with its faults, not with a traceback."""
    try:
        app()
    except RecipeError as error:
        typer.echo(error, err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
