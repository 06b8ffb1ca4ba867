"""`opentriage-train`: one recipe file per model; what a command does depends on the recipe's task (training/tasks)."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from training.importing.command import import_command
from training.naming import NamesAll
from training.networks.imagenet import WeightsUnavailable
from training.recipe_file import RecipeError
from training.tasks.order import Order
from training.tasks.table import perform

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Fit, compare, export, validate, package and import models; one recipe file for each. Every option of a recipe"
    " stands in training/recipes/every-option.toml.",
)

RecipeFile = Annotated[
    Path,
    typer.Argument(metavar="RECIPE", exists=True, dir_okay=False, help="A recipe, for instance limb-fracture.toml."),
]
Data = Annotated[
    Path, typer.Option("--data", exists=True, file_okay=False, help="The folder that holds the image sets.")
]
Run = Annotated[Path, typer.Option("--run", file_okay=False, help="The run's folder: curve, checkpoint, weights.")]
Out = Annotated[Path, typer.Option("--out", file_okay=False, help="Where packages go: OUT/<name>/<version>.")]
Threads = Annotated[int, typer.Option(help="Threads of ONNX Runtime; 0 takes every core.")]
LeaveOut = Annotated[
    str | None, typer.Option("--leave-out", help="Slice models: the institution that is the test and trains nothing.")
]
Folds = Annotated[
    list[Path] | None, typer.Option("--fold", help="Slice models: a packaged run with --leave-out, for the figures.")
]
Members = Annotated[
    list[Path] | None,
    typer.Option("--member", file_okay=False, help="Classifiers: a further run, another network of one ensemble."),
]


@app.command("fit", cls=NamesAll)
def fit_command(recipe: RecipeFile, data: Data, run: Run, leave_out: LeaveOut = None) -> None:
    """Train, or go on where RUN/checkpoint.pt stopped. Ends with RUN/weights.pt."""
    perform("fit", Order(recipe, data, run, leave_out=leave_out))


@app.command("preview", cls=NamesAll)
def preview_command(
    recipe: RecipeFile,
    data: Data,
    out: Annotated[Path, typer.Option("--out", dir_okay=False, help="The contact sheet, a PNG.")],
    images: Annotated[int, typer.Option(min=1, help="Rows; of a classifier, rows for each data set.")] = 4,
    draws: Annotated[int, typer.Option(min=1, help="Columns beside the original.")] = 7,
) -> None:
    """Show what the augmentation really does: with boxes or masks; of a classifier, the classes before and after."""
    perform("preview", Order(recipe, data, out=out, images=images, draws=draws))


@app.command("pretrain", cls=NamesAll)
def pretrain_command(recipe: RecipeFile, data: Data, run: Run) -> None:
    """Learn from the pictures of the train split without their labels; RUN/weights.pt is then a recipe's fit.init."""
    perform("pretrain", Order(recipe, data, run))


@app.command("uncertain", cls=NamesAll)
def uncertain_command(
    recipe: RecipeFile,
    data: Data,
    run: Run,
    policy: Annotated[list[str] | None, typer.Option(help="One of the five, may be repeated; without: all.")] = None,
    fits: Annotated[bool, typer.Option(help="--no-fits: only count the classes.")] = True,
) -> None:
    """Fit a recipe with a CheXpert-style table once for each way to take uncertain labels, and compare them."""
    perform("uncertain", Order(recipe, data, run, policies=tuple(policy or ()), fits=fits))


@app.command("export", cls=NamesAll)
def export_command(
    recipe: RecipeFile, data: Data, run: Run, out: Out, threads: Threads = 0, member: Members = None
) -> None:
    """Write graph, calibration, gate and manifest, without card and figures: for a first look."""
    perform("export", Order(recipe, data, run, out, threads, members=tuple(member or ())))


@app.command("validate", cls=NamesAll)
def validate_command(
    recipe: RecipeFile, data: Data, run: Run, out: Out, threads: Threads = 0, member: Members = None
) -> None:
    """Measure an exported classifier on the test split; write its validation.json and card and pin them."""
    perform("validate", Order(recipe, data, run, out, threads, members=tuple(member or ())))


@app.command("package", cls=NamesAll)
def package_command(
    recipe: RecipeFile,
    data: Data,
    run: Run,
    out: Out,
    threads: Threads = 0,
    leave_out: LeaveOut = None,
    folds: Folds = None,
    member: Members = None,
) -> None:
    """Export and validate: the whole package."""
    more = tuple(member or ())
    perform("package", Order(recipe, data, run, out, threads, leave_out, tuple(folds or ()), members=more))


@app.command("compare", cls=NamesAll)
def compare_command(
    recipe: RecipeFile,
    data: Data,
    out: Annotated[Path, typer.Option("--out", file_okay=False, help="Where runs, table and plot go.")],
    variants: Annotated[
        Path | None,
        typer.Option(
            "--variants", exists=True, dir_okay=False, help="A file of variants in place of the recipe's own."
        ),
    ] = None,
) -> None:
    """Train every variant of a comparison file on the same splits and write compare.md, compare.json, compare.png.

    Finished variants are skipped: the command may be cut off and called again.
    """
    perform("compare", Order(recipe, data, out=out, variants=variants))


@app.command("samples", cls=NamesAll)
def samples_command(
    recipe: RecipeFile,
    data: Data,
    out: Annotated[Path, typer.Option("--out", file_okay=False, help="Where the DICOM files go.")],
    package: Annotated[
        Path,
        typer.Option("--package", exists=True, file_okay=False, help="Its gate and model must agree."),
    ],
) -> None:
    """Draw six synthetic chests of invented children that the package's gate accepts and its model reads right."""
    perform("samples", Order(recipe, data, out=out, package=package))


app.command("import", cls=NamesAll)(import_command)


def main() -> None:
    """What cannot be done ends with a sentence that says why and exit code 2, not with a traceback."""
    try:
        app()
    except (RecipeError, WeightsUnavailable) as error:
        _refuse(str(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _refuse(f"{where}{error.strerror or error}")


def _refuse(sentence: str) -> None:
    typer.echo(sentence, err=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
