"""`opentriage forget`."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer
from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.tag import Tag

from config import Settings
from ledger.errors import OpenTriageError
from ledger.forgetting import Known
from ledger.ledger import Ledger
from node.asking import STUDY_HELP, existing_ledger, study_named
from node.chores.retention import rules_of, set_aside
from node.console import ConfigOption, confirmed, err, fail, settings_of
from node.trail.auditing import person

app = typer.Typer(add_completion=False)
BLOCK = 1 << 20
SHORTEST = 5  # bytes: a shorter Patient ID stands in files of others too
_NAME, _ID = Tag("PatientName"), Tag("PatientID")


@app.command()
def forget(
    study_uid: Annotated[str, typer.Argument(metavar="STUDY_UID", help=f"{STUDY_HELP} With --yes the whole.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    even_undelivered: Annotated[
        bool,
        typer.Option(
            "--even-undelivered",
            help="Erase although something is undelivered, parked, held or promised to a sender. Keep the reason in "
            "your own files: the audit trail, of which nothing can be erased, takes nobody's sentence.",
        ),
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Erase one study from this node: images, pictures, results, reports, history, opinions, and broken files in
    quarantine that name it or its patient. What was sent is elsewhere and stays there. The audit trail keeps that it
    was done, with a keyed hash of the study. The ledger's file is then written anew, for which it needs as much free
    space again; do it when little is going on. Backups are yours to deal with: those below the state folder that still
    name the study are listed at the end.
    """
    settings = settings_of(config)
    ledger = existing_ledger(settings)
    study_uid = study_uid if yes else study_named(ledger, study_uid)
    known = ledger.known(study_uid, rules_of(settings).promised_s)
    if known is None:
        _rewrite(ledger)
        _say_what_is_left(settings, study_uid)
        fail("this node does not know that study; what it had known of others and deleted is gone from its files too")
    names = list(_names(settings, ledger, known))
    broken = [path for path in set_aside(settings) if holds(path, names)]
    _show(known, broken)
    if known.against and not even_undelivered:
        fail("nothing was erased: wait until that is done, or say --even-undelivered")
    if not yes and not confirmed("Erase it for good?"):
        fail("nothing was erased")
    _erase(ledger, settings, known, even_undelivered, broken)


def _erase(ledger: Ledger, settings: Settings, known: Known, despite: bool, broken: list[Path]) -> None:
    try:
        ledger.forget(known.study_uid, person(), rules_of(settings).promised_s, despite, len(broken))
    except OpenTriageError as error:
        fail(f"nothing was erased: {error}")
    for path in broken:
        path.unlink(missing_ok=True)
    _rewrite(ledger)
    err.print("The study is erased.")
    _say_what_is_left(settings, known.study_uid)


def _rewrite(ledger: Ledger) -> None:
    try:
        ledger.rewrite()
    except OpenTriageError as error:
        fail(
            f"the rows and files are gone, but the ledger's file could not be written anew ({error}): is there as much "
            "free space as it is large? Traces may be in it until the same command succeeds."
        )


def _names(settings: Settings, ledger: Ledger, known: Known) -> Iterator[bytes]:
    """What names the study or its patient, as it lies in files."""
    yield known.study_uid.encode()
    for uid in known.uids:
        yield uid.encode()
    for relative in known.files:
        if not relative.endswith(".dcm"):
            continue
        try:
            header = dcmread(ledger.store.path(relative), specific_tags=[_NAME, _ID], stop_before_pixels=True)
        except (OSError, InvalidDicomError):
            continue
        values = [item.value for tag in (_NAME, _ID) if (item := header.get_item(tag)) is not None]
        yield from (name for value in values if len(name := _bytes(value).strip()) >= SHORTEST)
        return


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value or "").encode()


def holds(path: Path, names: Iterable[bytes]) -> bool:
    """Whether a file has any of these byte strings in it, wherever."""
    wanted = list(names)
    overlap = max(map(len, wanted))
    tail = b""
    try:
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                if any(name in tail + block for name in wanted):
                    return True
                tail = (tail + block)[-overlap:]
    except OSError:
        return False
    return False


def _say_what_is_left(settings: Settings, study_uid: str) -> None:
    state = settings.node.state_dir
    store = state / "store"
    files = (path for path in sorted(state.rglob("*")) if path.is_file() and store not in path.parents)
    for path in files:
        if holds(path, [study_uid.encode()]):
            err.print(f"{path} still names the study: a backup? It is yours to delete.", style="yellow", markup=False)


def _show(known: Known, broken: list[Path]) -> None:
    err.print(f"Study {known.study_uid}, first received {known.first_received_at}, would be erased:", highlight=False)
    for count, what in (
        (known.instances, f"received instances ({known.size_bytes / 1e6:.1f} MB)"),
        (known.results, "results of models"),
        (known.objects, "objects of reports"),
        (known.opinions, "opinions of readers"),
        (known.events, "events of its history"),
        (len(broken), "broken files in quarantine"),
    ):
        err.print(f"  {count:>6} {what}", highlight=False)
    for sentence in known.against:
        err.print(f"  Against it: {sentence}", style="bold yellow", markup=False, highlight=False)
    if known.others:
        err.print(f"  Of the same patient, and not touched: {', '.join(known.others)}", highlight=False)
