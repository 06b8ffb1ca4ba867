"""The command `opentriage`. Each subcommand lives in node/commands/ and is imported only when it is asked for."""

import importlib
import os
import sys
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from node import imports

COMMANDS = {
    "serve": "Run the node: receive, analyse, report, deliver and show, until it is told to stop.",
    "send": "Send DICOM files and folders to an application entity by C-STORE, bytes unchanged.",
    "analyse": "Look at files through the node's own code path, without a network.",
    "worklist": "Print the triage list, most urgent first.",
    "explain": "Print everything that happened to one study, and why.",
    "release": "Let a parked job run again, once its cause is gone.",
    "recall": "Withdraw reports, of one study or of all that rest on a model.",
    "forget": "Erase one study from this node: every file and every row that names it.",
    "look-again": "Let the installed models look at a study's images again.",
    "token": "Make, list and revoke the tokens of the HTTP interface and of the page's sign-in.",
    "opinions": "Export what readers said of findings, as a table that validate reads.",
    "models": "List the installed model packages, or check that they are what they claim to be.",
    "validate": "Measure a model package on labelled images: figures, plots and one page.",
    "replay": "Decide stored studies anew with another package or thresholds, and list what changes.",
    "alert-budget": "Which thresholds keep the flags of a day within a budget, and what that would have missed.",
    "drift": "Whether images, or what the models make of them, differ from those of the weeks before.",
    "probe-pacs": "Find out what a PACS takes: ask, send an invented patient's study, look what is found again.",
    "health": "Say whether the node on this machine is well, and if not, why.",
    "ledger": "The ledger's schema and backups, and the way to a newer release and back.",
    "audit": "Read, verify and export the audit trail.",
    "conformance": "Print the DICOM conformance statement, from the tables that the program uses.",
    "doctor": "Look at everything that the node depends on, and say what to do about it.",
    "check-config": "Print every setting with its origin, and warn of risky choices.",
    "certs": "Certificates to try TLS with: a test authority; what a certificate says of itself.",
    "demo": "Show the whole path in a throwaway folder: samples in, reports in a stand-in PACS.",
}


class _Lazy(TyperGroup):
    """Knows all commands by name; imports the one that runs, and none for a list of them, so that --help answers at
    once."""

    _lists = False

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self._lists = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self._lists = False

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        if self._lists:
            return TyperCommand(cmd_name, short_help=COMMANDS[cmd_name])
        module = importlib.import_module(f"node.commands.{cmd_name.replace('-', '_')}")
        imports.end()
        command = typer.main.get_command(module.app)
        command.name = cmd_name
        command.short_help = COMMANDS[cmd_name]
        return command


app = typer.Typer(
    cls=_Lazy,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 done, 1 could not be done, 2 wrong usage or configuration. Not a medical device.",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"opentriage {version('opentriage')}")
        raise typer.Exit


@app.callback()
def opentriage(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """A DICOM node that looks at radiographs as they arrive and tells PACS which to read first.

    Start with `opentriage demo`. To run it for real: write a settings file, hold it against
    `opentriage check-config --config FILE`, then `opentriage serve --config FILE`.
    """


def main() -> None:
    """Entry point. An unexpected error shows where it happened and never a value, which could name a patient."""
    imports.begin()
    try:
        app(prog_name="opentriage")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:  # noqa: BLE001  loop top of the command line
        from ledger.errors import LedgerUnavailable
        from node.logging import describe, places

        if isinstance(error, LedgerUnavailable):  # no fault of the program
            sys.stderr.write(f"{error}; see docs/runbooks/ledger-unavailable.md\n")
            sys.exit(1)
        sys.stderr.write(f"opentriage: {describe(error)}\n" + "".join(f"  at {place}\n" for place in places(error)))
        sys.exit(1)


if __name__ == "__main__":
    main()
