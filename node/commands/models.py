"""`opentriage models`."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from config.settings import LookSettings
from inference.errors import PackageError
from inference.gate import age_words
from inference.licence import unaccepted
from inference.manifest import Manifest
from inference.package import default_models_dir, find_packages, installed
from inference.session import behaving
from inference.verify import verify
from node.console import EXIT_FAILED, ConfigOption, err, fail, out, progress, settings_of
from node.watching import no_model

MOST_PARTS = 4  # that a cell of the list names
NO_TORCH = (
    "importing weights needs torch, which this node does without. In a checkout of OpenTriage, make an environment"
    " beside it: python3 -m venv .venv-train; .venv-train/bin/pip install --require-hashes -r requirements/train.txt;"
    " .venv-train/bin/pip install --no-deps --editable .; then run .venv-train/bin/opentriage models import"
)
app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.callback()
def models() -> None:
    """Model packages: a folder models/NAME/VERSION whose manifest pins the hash of every other file."""


@app.command("list")
def list_packages(config: ConfigOption = None) -> None:
    """List the packages that the node would load: what each reads, finds, and may be used for.

    Then those it passes over for their licence, and those it refuses, with the reason. Exit status 1 when it refuses
    one, or has none to look with.
    """
    look = settings_of(config).look
    try:
        found = behaving(installed(look))
    except PackageError as error:
        fail(str(error))
    table = Table(box=None, pad_edge=False)
    for heading in ("name", "version", "finds", "reads", "licence of weights", "digest"):
        table.add_column(heading, overflow="fold", no_wrap=heading in ("name", "version", "digest"))
    for package in found.packages:
        manifest = package.manifest
        table.add_row(
            manifest.name,
            manifest.version,
            ", ".join(label.label for label in manifest.labels),
            _reads(manifest),
            manifest.licence.weights + (", non-commercial" if manifest.licence.non_commercial else ""),
            package.digest[:16],
        )
    out.print(table)
    for manifest in found.passed_over:
        err.print(f"not used: {unaccepted(manifest, look)}", style="yellow", markup=False)
    for one in found.refused:
        err.print(one.sentence, style="bold red", markup=False, soft_wrap=True)
    if not found.packages:
        err.print(f"none of them can be used: {no_model.SENTENCE}", style="bold red", markup=False, soft_wrap=True)
    if found.refused or not found.packages:
        raise typer.Exit(EXIT_FAILED)


def _reads(manifest: Manifest) -> str:
    parts = manifest.reads.body_parts
    named = "/".join(parts) if len(parts) <= MOST_PARTS else f"{len(parts)} body parts"
    return f"{'/'.join(manifest.reads.modalities)} {named}, {age_words(manifest.ages_years)}"


@app.command("verify")
def verify_packages(
    folders: Annotated[
        list[Path] | None, typer.Argument(metavar="[DIR...]", help="Package folders; without one, all installed.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Check each package: manifest, hashes, graph, and its golden images replayed on this machine.

    Exit status 0 when every package is what it claims to be, 1 when one is not.
    """
    chosen = folders or _installed(settings_of(config).look)
    if not chosen:
        fail("no model package is installed")
    bad = False
    with progress() as bar:
        for folder in bar.track(chosen, description="verifying"):
            problems = verify(folder)
            bad = bad or bool(problems)
            out.print(f"{folder}\t{'ok' if not problems else 'not usable'}", markup=False)
            for problem in problems:
                err.print(f"  {problem}", markup=False)
    if bad:
        raise typer.Exit(EXIT_FAILED)


def _installed(look: LookSettings) -> list[Path]:
    root = default_models_dir() if look.models_dir == Path() else look.models_dir
    return [folder for versions in find_packages(root).values() for folder in versions]


@app.command(
    "import",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
def import_package(context: typer.Context) -> None:
    """Make a package of published DenseNet-121 weights (TorchXRayVision, torchvision); needs an environment with torch.

    \b
    opentriage models import CHECKPOINT --kind KIND --out DIR
                             --name NAME --label LABEL --seen-data SET
    CHECKPOINT        A .pt, .pth or .safetensors file.
    --kind KIND       torchvision-densenet121 or torchxrayvision-densenet121.
    --out DIR         The package goes to DIR/NAME/VERSION.
    --name NAME       Of the package: small letters, digits and hyphens.
    --label LABEL     NAME or NAME=ROW of the head, from 0; repeat.
    --seen-data SET   A set that the weights have seen; repeat. Or: unknown.
    --licence TEXT    Of the weights, as published; without it: unknown.
    --non-commercial  The weights' licence says so.
    --version TEXT    Of the package; without it: 1.0.0.
    --ages FROM-TO    Years, TO not included; without it: 18-120.
    --size PIXELS     Height and width of the input; without it: 224.
    --trunk-only      Write DIR/weights.pt for a recipe, without a head.

    Nothing that the file contains is run. The package raises no priority: nothing was measured.
    """
    if importlib.util.find_spec("training") and importlib.util.find_spec("torch"):
        command = [sys.executable, "-m", "training.cli", "import", *context.args]
        raise typer.Exit(subprocess.run(command, check=False).returncode)
    if not {"-h", "--help"}.isdisjoint(context.args):
        typer.echo(context.get_help())
        raise typer.Exit
    fail(NO_TORCH)
