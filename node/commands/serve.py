"""`opentriage serve`."""

import errno
import sys
from typing import Annotated

import typer

from config import Settings
from ledger.errors import OpenTriageError
from node import imports
from node.console import ConfigOption, fail, settings_of, usage_error
from node.logging import configure, describe
from node.roles import ROLES, run_role
from node.running import on_its_own
from node.running.confine import confine
from node.running.private_state import close_to_others
from node.watching.counters import take_room

app = typer.Typer(add_completion=False)


@app.command()
def serve(
    config: ConfigOption = None,
    role: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(ROLES),
            help="Run only this part, in this process: for several machines around one PostgreSQL and one store.",
        ),
    ] = None,
) -> None:
    """Run the node until SIGTERM or Ctrl-C.

    Without --role every part runs as a process of its own and is restarted when it dies; what a crash left behind is
    put in order first. One JSON line per fact goes to standard error; `node_ready` follows the node's answer to its
    own C-ECHO. A node whose models cannot be had, or whose port is taken, says why in its last line and ends with 1
    before it takes an image.
    """
    if role is not None and role not in ROLES:
        usage_error(f"--role must be one of {', '.join(ROLES)}")
    settings = settings_of(config)
    configure(settings.node.log_level, role or "supervisor")
    close_to_others()
    if role is not None:
        _confine(role, settings)
        sys.exit(run_role(role, settings))
    imports.begin()
    from node.running.supervisor import Supervisor

    imports.end()
    try:
        sys.exit(Supervisor(settings, config.absolute() if config else None).run())
    except OSError as error:
        fail(f"cannot start: {_why(error, settings)}")
    except OpenTriageError as error:
        fail(f"cannot start: {error}")


def _why(error: OSError, settings: Settings) -> str:
    state = settings.node.state_dir
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk of {state} is full ({error.strerror}): make room there; see docs/runbooks/disk-full.md"
    return f"{describe(error)}; is {state} writable (node.state_dir)?"


def _confine(role: str, settings: Settings) -> None:
    """Before anything of the role is imported: what it gives up must bind every thread that it will ever have."""
    try:
        if on_its_own.is_on_its_own():
            on_its_own.prepare(role, settings)
        take_room()
        confine(role, settings)
    except OpenTriageError as error:
        fail(f"cannot start: {error}")
    except OSError as error:
        fail(f"cannot start: {_why(error, settings)}")
