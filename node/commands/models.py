"""`opentriage models`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from config.settings import LookSettings
from inference.errors import PackageError
from inference.gate import age_words
from inference.manifest import Manifest
from inference.package import default_models_dir, find_packages, load_packages
from inference.verify import verify
from node.console import EXIT_FAILED, ConfigOption, err, fail, out, progress, settings_of

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.callback()
def models() -> None:
    """Model packages: a folder models/NAME/VERSION whose manifest pins the hash of every other file."""


@app.command("list")
def list_packages(config: ConfigOption = None) -> None:
    """List the packages that the node would load: what each reads, finds, and may be used for."""
    try:
        packages = load_packages(settings_of(config).look)
    except PackageError as error:
        fail(str(error))
    table = Table(box=None, pad_edge=False)
    for heading in ("name", "version", "finds", "reads", "licence of weights", "digest"):
        table.add_column(heading, overflow="fold", no_wrap=heading in ("name", "version", "digest"))
    for package in packages:
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


def _reads(manifest: Manifest) -> str:
    what = f"{'/'.join(manifest.reads.modalities)} {'/'.join(manifest.reads.body_parts)}"
    return f"{what}, {age_words(manifest.ages_years)}"


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
