"""`opentriage ledger`."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from config import Settings
from ledger.audit import AuditEvent, AuditKind
from ledger.backup import back_up, backups_of, by_postgresql, stamp
from ledger.errors import OpenTriageError
from ledger.ledger import Ledger
from ledger.presence import is_there
from ledger.schema import LedgerState, RolledBack, check_way_back, roll_back, state_of, working_elsewhere
from ledger.schema import upgrade as bring_up
from ledger.store import Store
from node.console import EXIT_FAILED, ConfigOption, err, fail, settings_of, usage_error
from node.running.lock import NotAlone, alone, let_go
from node.trail.auditing import person
from node.wiring import open_ledger, owner_prefix

TRAIL_SINCE = "0008"  # the first schema with an audit trail
app = typer.Typer(add_completion=False, no_args_is_help=True)
NoBackupOption = Annotated[
    bool, typer.Option("--no-backup", help="Make no copy of the ledger first: you have a backup of your own.")
]


@app.callback()
def ledger() -> None:
    """The node's memory: its schema, its backups, and the way to a newer release and back (docs/upgrade.md).

    The ledger is a SQLite file, or a PostgreSQL database. What it says of images it says of the files in the store
    beside it: back up both, the ledger first and then the store, so that every image it names is in the copy.
    """


@app.command()
def status(config: ConfigOption = None) -> None:
    """Print where the ledger is, which schema it has, and what is in it. Changes nothing; the node may run.

    Exit status 1 when its schema is not this program's: the text says what to do.
    """
    settings = settings_of(config)
    state = _state(settings)
    size = f", {state.size_bytes / 1e6:.1f} MB" if state.size_bytes is not None else ""
    typer.echo(f"ledger    {state.place}{size}")
    typer.echo(f"schema    {state.schema} (this program: {state.program})")
    typer.echo(f"holds     {state.studies} studies, {state.instances} instances")
    typer.echo(f"jobs      {state.waiting} to do, {state.parked} parked")
    typer.echo(f"backup    {_newest_backup(settings)}")
    if state.schema != state.program:
        err.print(_other_schema(state), style="bold red", markup=False, soft_wrap=True)
        raise typer.Exit(EXIT_FAILED)


@app.command()
def backup(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Where to; without it, a dated file in backups/ beside it.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Copy a SQLite ledger while the node runs: one consistent moment, checked, readable for its owner alone.

    Prints the file's name. It names studies and senders: keep it as you keep images. Copy the folder `store` after it,
    not before. PostgreSQL: the message gives the command of PostgreSQL's own. The way back: docs/upgrade.md.
    """
    settings = settings_of(config)
    schema = _state(settings).schema
    with _said():
        target = file or _named(settings, f"ledger-{schema}-{stamp()}")
        size_bytes = back_up(settings.database_url, target)
    err.print(f"{size_bytes / 1e6:.1f} MB, schema {schema}", markup=False)
    typer.echo(str(target))


@app.command()
def upgrade(no_backup: NoBackupOption = False, config: ConfigOption = None) -> None:
    """Bring an older release's ledger to this program's schema, after a copy of it. The node must be stopped.

    `opentriage serve` does the same at its start; this does it at an hour of your choice, and on one machine of many.
    """
    settings = settings_of(config)
    state = _state(settings)
    if state.schema == state.program:
        err.print(f"nothing to do: the ledger has schema {state.schema}")
        return
    with _said(), _stopped(settings):
        was, now = bring_up(settings.database_url, keep_a_copy=not no_backup)
        _note(settings, "ledger_upgrade", was, now)
    err.print(f"schema {was} -> {now}; the copy of before: {_newest_backup(settings)}", markup=False, soft_wrap=True)


@app.command()
def rollback(
    to: Annotated[str, typer.Option(metavar="SCHEMA", help="The older release's schema, such as 0007.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    no_backup: NoBackupOption = False,
    config: ConfigOption = None,
) -> None:
    """Take the ledger back to an older release's schema, so that that release can run again. The node must be stopped.

    Nothing that the older release knows is lost: every study, report, delivery and waiting job stays. What it has no
    place for (opinions, tokens, reports of shadow mode, and THE AUDIT TRAIL, which is deleted from the ledger) is
    written to files in backups/ first, beside a copy of the whole ledger. Afterwards start the older release, not this
    one, which would upgrade again.
    """
    settings = settings_of(config)
    state = _state(settings)
    if to == state.schema:
        usage_error(f"the ledger has schema {to} already")
    with _said():
        check_way_back(state.schema, to)
        if not settings.database_url.startswith("sqlite") and not no_backup:
            fail(f"{by_postgresql(settings.database_url)}; then give --no-backup")
    folder = _store_of(settings).root.absolute().parent / "backups" / f"rolled-back-{state.schema}-to-{to}-{stamp()}"
    if to < TRAIL_SINCE <= (state.schema or ""):
        _say_what_becomes_of_the_trail(to, folder)
    if not yes:
        typer.confirm(f"Take the ledger from schema {state.schema} to {to}?", abort=True, err=True)
    with _said(), _stopped(settings):
        if not no_backup:
            back_up(settings.database_url, _named(settings, f"ledger-{state.schema}-before-{to}-{stamp()}"))
        _note(settings, "ledger_rollback", state.schema, to)
        done = roll_back(settings.database_url, _store_of(settings), to, folder)
    _tell(done, folder, settings)


def _say_what_becomes_of_the_trail(to: str, folder: Path) -> None:
    err.print(
        f"THE AUDIT TRAIL IS DELETED FROM THE LEDGER: schema {to} has none. Before that all of it is written to "
        f"{folder}/audit_records.jsonl, and its seals to audit_seals.jsonl. Keep them as long as the trail must be "
        "kept; a later upgrade begins a new one. `opentriage audit export` writes a copy that is easier to read.",
        style="bold red",
        markup=False,
        soft_wrap=True,
    )


def _tell(done: RolledBack, folder: Path, settings: Settings) -> None:
    err.print(f"schema {done.was} -> {done.now}; what {done.now} has no place for is in {folder}:", soft_wrap=True)
    for name, count in done.rows.items():
        if count:
            err.print(f"  {name}.jsonl: {count}", markup=False)
    if done.objects_kept:
        err.print(f"  objects/: {done.objects_kept} files of reports that were sent to nobody", markup=False)
    if done.rows.get("studies.images_removed_at"):
        err.print("at its start the older release will call the images that retention removed lost: they are not")
    if getattr(settings.node, "mode", "live") == "shadow":
        err.print(
            "THE OLDER RELEASE KNOWS NO SHADOW MODE: it sends to every [[destinations]] of its settings. Take them out "
            "of its settings file before you start it.",
            style="bold red",
            markup=False,
        )


def _state(settings: Settings) -> LedgerState:
    with _said():
        if not is_there(settings.database_url):
            fail(
                "there is no ledger yet: a node makes it at its first start. "
                "Is --config (or OPENTRIAGE_CONFIG) missing?"
            )
        return state_of(settings.database_url)


def _other_schema(state: LedgerState) -> str:
    if state.schema > state.program:
        return (
            f"a newer release has used this ledger, and this program will not start on it. Start the newer release; or "
            f"run its own `opentriage ledger rollback --to {state.program}`, and then start this one"
        )
    return "an older release's: the next `opentriage serve`, or `opentriage ledger upgrade`, brings it up, after a copy"


@contextmanager
def _stopped(settings: Settings) -> Iterator[None]:
    """Nobody works on the ledger, here or elsewhere, and nobody on this machine begins to; or exit status 1."""
    try:
        lock = alone(settings, 0.0, threading.Event())
    except NotAlone as error:
        fail(f"{error}: nothing was changed. Stop it (`systemctl stop opentriage`), also where it is an older release")
    try:
        if others := working_elsewhere(settings.database_url, owner_prefix()):
            fail(
                f"somebody works on the ledger: {', '.join(others)}; stop the node there, or wait until its leases end"
            )
        yield
    finally:
        let_go(lock)


@contextmanager
def _said() -> Iterator[None]:
    """Our own errors as a sentence and exit status 1."""
    try:
        yield
    except OpenTriageError as error:
        fail(str(error))


def _note(settings: Settings, what: str, was: str, now: str) -> None:
    """In the audit trail; a ledger of an older schema has none."""
    ledger: Ledger = open_ledger(settings)
    try:
        ledger.audit(AuditEvent(AuditKind.OPERATED, person(), detail={"did": what, "from": was, "to": now}))
    finally:
        ledger.close()


def _named(settings: Settings, name: str) -> Path:
    return backups_of(settings.database_url) / f"{name}.sqlite"


def _newest_backup(settings: Settings) -> str:
    if not settings.database_url.startswith("sqlite"):
        return "PostgreSQL's own"
    found = sorted(backups_of(settings.database_url).glob("*.sqlite"), key=lambda path: path.stat().st_mtime)
    return str(found[-1]) if found else "none"


def _store_of(settings: Settings) -> Store:
    return Store(settings.node.state_dir / "store")
