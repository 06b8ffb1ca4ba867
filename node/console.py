"""How commands speak: results on standard output, everything else on standard error."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console

if TYPE_CHECKING:
    from rich.progress import Progress

from config import ConfigError, Settings, load_settings
from sr_writer.words import unspeakable

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False)

EXIT_FAILED, EXIT_USAGE = 1, 2
_INSTEAD = {"LOW": 'Write "unflagged" for the priority, or "low" in small letters for anything else.'}
_INSTEAD_OF_A_VERDICT = 'Write "unflagged", or say what was wrong: "the operating point did not fit our detectors".'

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        envvar="OPENTRIAGE_CONFIG",
        help="TOML file with this site's settings; what it leaves out keeps its default (see config/default.toml).",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object per line instead of a table.")]


def settings_of(config: Path | None) -> Settings:
    """The settings, or a sentence on standard error and exit status 2."""
    try:
        return load_settings(config)
    except ConfigError as error:
        usage_error(str(error))


def usage_error(text: str) -> NoReturn:
    """Say what was wrong with the command and exit with 2."""
    err.print(text, style="bold red", markup=False, soft_wrap=True)
    raise typer.Exit(EXIT_USAGE)


def fail(text: str) -> NoReturn:
    """Say what could not be done and exit with 1."""
    err.print(text, style="bold red", markup=False, soft_wrap=True)
    raise typer.Exit(EXIT_FAILED)


def confirmed(question: str) -> bool:
    """What a person at the terminal answers; a usage error where nobody is there."""
    if not sys.stdin.isatty():
        usage_error("nobody is there to ask: give --yes")
    return typer.confirm(question, err=True)


def reason_given(text: str) -> str:
    """A person's --reason on one line. Ends with 2 where it holds a word for which a report would leave it out."""
    if word := unspeakable(text):
        usage_error(
            f"--reason: no reader of a report may see the word {word!r}, so the report would not give this reason. "
            f"{_INSTEAD.get(word, _INSTEAD_OF_A_VERDICT)}"
        )
    return " ".join(text.split())


def progress() -> "Progress":
    """A progress bar on standard error that leaves nothing behind."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=err,
        transient=True,
    )
