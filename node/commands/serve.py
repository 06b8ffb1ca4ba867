"""`opentriage serve`."""

import sys
from typing import Annotated

import typer

from ledger.errors import OpenTriageError
from node.console import ConfigOption, fail, settings_of, usage_error
from node.logging import configure, describe
from node.roles import ROLES, run_role

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
    if role is not None:
        sys.exit(run_role(role, settings))
    from node.supervisor import Supervisor

    try:
        sys.exit(Supervisor(settings, config.absolute() if config else None).run())
    except OSError as error:
        fail(f"cannot start: {describe(error)}; is {settings.node.state_dir} writable (node.state_dir)?")
    except OpenTriageError as error:
        fail(f"cannot start: {error}")
