"""`opentriage validate`."""

import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from config.settings import Settings
from inference.package import Package, installed, load_package
from ledger.errors import OpenTriageError
from ledger.store import Store
from node.console import ConfigOption, err, fail, out, progress, settings_of, usage_error
from node.logging import configure
from validation.bootstrap import DRAWS
from validation.floors import FLOORS, Floor, overridden
from validation.judge import Judge
from validation.run import Validation, labels_of, validate, write_images, write_json
from validation.table import Table, TableError, read_table

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")
Provider = Literal["auto", "cpu", "openvino", "cuda", "tensorrt"]
SAID = {"missed": "missed", "too_few": "too few to say", "reached_not_proven": "reached, not proven"}
FLOOR_WORDS = ", ".join(f"{name}={floor.value:g}" for name, floor in FLOORS.items())


@app.command(
    "validate",
    epilog="Exit status: 0 the figures were made, whatever they are; 1 they could not be made, or not all of them;"
    " 2 wrong usage, or a row of the table that cannot be used.",
)
def validate_command(
    table: Annotated[
        Path, typer.Argument(metavar="MANIFEST.csv", help="The table of labelled images.", exists=True, dir_okay=False)
    ],
    model: Annotated[
        str, typer.Option(metavar="NAME", help="Package: NAME, NAME/VERSION, or the folder that holds its manifest.")
    ],
    out_dir: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the figures, plots and page go.")],
    as_kind: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="MODALITY/PART",
            help="What PNG and JPEG files show, such as DX/CHEST; without it, the first of what the package reads.",
        ),
    ] = None,
    floor: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help=f"Override a floor; may be repeated. There are {FLOOR_WORDS}."),
    ] = None,
    provider: Annotated[
        Provider | None, typer.Option(help="Where the model runs; without it, as look.provider says.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=0, help="Threads of the model; 0: every core; without it, as look.threads says.")
    ] = None,
    draws: Annotated[int, typer.Option(min=100, max=100_000, help="Bootstrap draws of patients.")] = DRAWS,
    figures_only: Annotated[
        bool, typer.Option("--figures-only", help="No plots and no page, which need matplotlib.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Measure a model package on labelled images, through the node's own code path.

    MANIFEST.csv has a heading and a line for each image. Needed: `image` (a DICOM, PNG or JPEG file, relative to the
    table) and a column named like a finding of the package, such as `pneumonia`, or just `label`: 1 with the finding,
    0 without, empty where nobody knows. Of use: `patient` (any code; intervals then draw whole patients), `age` (years,
    or 018M), `sex`, `view`, `site` (each gives figures by group), `mask` (a PNG of what a person outlined; gives Dice).

    A DICOM file is read as the node reads it: its own header says age and view to the model, the table only says in
    which group it counts. A PNG or JPEG has no header: the model is told the table's age and view.

    DIR gets `validation.html` (one page that needs no other file), `validation.json` (every figure), `images.csv` (what
    was said of each image) and the plots as PNG. An image that is missing, broken, refused or abstained from is counted
    and is an error in sensitivity and specificity; the figures of only those looked at stand beside. No patient's code
    is written.
    """
    settings = _settings(config, provider, threads)
    floors = _floors(floor or [])
    configure(settings.node.log_level if settings.node.log_level != "info" else "error", "validate")
    package = _package(model, settings)
    try:
        rows = read_table(table, labels_of(package.manifest))
    except TableError as error:
        usage_error(str(error))
    if not figures_only:
        _check_plots()
    _prepare(out_dir)
    made = _measure(package, settings, rows, floors, as_kind, draws)
    write_json(made.figures, out_dir / "validation.json")
    write_images(made, rows, out_dir / "images.csv")
    _say(made)
    if figures_only:
        return
    from validation.page import write

    with err.status("drawing"):
        written = write(made, out_dir)
    err.print(f"wrote {written[-1]}", markup=False, soft_wrap=True)


def _prepare(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        usage_error(f"--out {folder}: no such folder can be made: {error.strerror}")


def _settings(config: Path | None, provider: Provider | None, threads: int | None) -> Settings:
    settings = settings_of(config)
    told: dict[str, Any] = {"provider": provider, "threads": threads}
    look = settings.look.model_copy(update={name: value for name, value in told.items() if value is not None})
    return settings.model_copy(update={"look": look})


def _floors(options: list[str]) -> dict[str, Floor]:
    try:
        return overridden(options)
    except ValueError as error:
        usage_error(str(error))


def _package(model: str, settings: Settings) -> Package:
    folder = Path(model)
    try:
        if (folder / "manifest.json").is_file():
            return load_package(folder.resolve())
        found = installed(settings.look.model_copy(update={"models": (model,)}))
    except OpenTriageError as error:
        fail(str(error))
    if found.refused:
        fail(found.refused[0].sentence)
    return found.packages[0]


def _measure(
    package: Package, settings: Settings, table: Table, floors: dict[str, Floor], as_kind: str | None, draws: int
) -> Validation:
    with tempfile.TemporaryDirectory(prefix="opentriage-validate-") as scratch:
        store = Store(Path(scratch), fsync=lambda descriptor: None) if table.masks is not None else None
        if store is not None:
            store.prepare()
        try:
            judge = Judge(package, settings=settings, store=store)
        except OpenTriageError as error:
            fail(str(error))
        try:
            with progress() as bar:
                task = bar.add_task("looking", total=len(table))
                return validate(judge, table, floors, as_kind, store, draws, lambda n: bar.advance(task, n))
        finally:
            judge.close()


def _check_plots() -> None:
    """Before the long look, not after it."""
    from validation.plots import PlotsNotInstalled, check_installed

    try:
        check_installed()
    except PlotsNotInstalled as error:
        fail(f"{error}; or ask for --figures-only")


def _say(made: Validation) -> None:
    """The figures that matter most, and what is wrong with them."""
    images = made.figures["images"]
    out.print(f"{images['looked_at']['hits']} of {images['n']} images looked at")
    for label, part in made.figures["labels"].items():
        area = part.get("auc_of_those_looked_at") or {"value": None, "interval95": None}
        out.print(
            f"{label}: sensitivity {_words(part['sensitivity']['value'], part['sensitivity']['wilson95'])},"
            f" specificity {_words(part['specificity']['value'], part['specificity']['wilson95'])},"
            f" AUC {_words(area['value'], area['interval95'])}",
            markup=False,
        )
    for advice in made.figures["recommendations"]:
        if advice["severity"] in SAID:
            out.print(f"{SAID[advice['severity']]}: {advice['text']}", markup=False)


def _words(value: float | None, interval: list[float] | None) -> str:
    if value is None:
        return "not measured"
    return f"{value:.3f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")
