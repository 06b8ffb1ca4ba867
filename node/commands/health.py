"""`opentriage health`."""

import typer

from config import Settings
from ledger.errors import OpenTriageError
from ledger.presence import is_there
from node import notices
from node.asking import existing_ledger
from node.console import EXIT_FAILED, ConfigOption, err, fail, settings_of
from node.running.lock import is_held
from node.watching.health import HealthCheck

app = typer.Typer(add_completion=False)


@app.command()
def health(config: ConfigOption = None) -> None:
    """Ask whether the node on this machine is well, as /healthz answers, but without its page: a container's check.

    One line for each reason why it is not, and for each alarm that a person must mend while it goes on. Exit status 0
    when it is well, 1 when it is not. Red means that a person should look, seldom that a restart would help.
    """
    settings = settings_of(config)
    if not _runs(settings):
        fail(
            f"not well: no node runs on {settings.node.state_dir}: start it (systemctl start opentriage); its log says "
            "last why it ended. Does it run with other settings? Then name them with --config"
        )
    ledger = existing_ledger(settings)
    began = float(notices.read(settings, "supervisor").get("began", 0.0))  # a role on its own: since the machine runs
    try:
        found = HealthCheck(settings, ledger, began).check()
    finally:
        ledger.close()
    for alarm in found.alarms:
        err.print(f"alarm: {alarm}", style="yellow", markup=False, soft_wrap=True)
    for reason in found.reasons:
        err.print(f"not well: {reason}", style="bold red", markup=False, soft_wrap=True)
    if found.reasons:
        raise typer.Exit(EXIT_FAILED)
    typer.echo("well")


def _runs(settings: Settings) -> bool:
    """Whether one does, or a role of one; or whether it is better to say that there is no ledger."""
    try:
        if not is_there(settings.database_url):
            return True
    except (OpenTriageError, ModuleNotFoundError):
        return True
    return is_held(settings) or bool(notices.read(settings, "supervisor"))
