"""`opentriage probe-pacs`."""

import sys
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.table import Table
from rich.text import Text

from config import Settings
from config.settings import AE_TITLE_WANTED, Destination
from node.console import ConfigOption, err, fail, out, progress, settings_of, usage_error
from node.fitting import column_widths
from node.logging import configure
from node.trying.probe import Found, Probed, Row, probe
from node.trying.sending import NoAssociation, Peer
from sr_writer.probe_study import PATIENT_ID, PATIENT_NAME, SOURCE, STUDY_DATE, STUDY_UID
from sr_writer.profiles import DEFAULT_PROFILE, PROFILES
from sr_writer.statuses import class_name

app = typer.Typer(add_completion=False)
HEADINGS = ("object", "SOP class", "needed", "context", "stored", "found again")


@app.command()
def probe_pacs(
    peer: Annotated[str, typer.Argument(metavar="AE@HOST:PORT", help="The PACS, e.g. PACS@10.1.2.3:104.")],
    calling: Annotated[
        str | None, typer.Option(metavar="AE", help="The AE title to call as.", show_default="the node's own")
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            metavar="PROFILE", help=f"What is needed there: {', '.join(PROFILES)}.", show_default=DEFAULT_PROFILE
        ),
    ] = None,
    qido: Annotated[str | None, typer.Option(metavar="URL", help="Ask over QIDO-RS too, at this address.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before sending.")] = False,
    config: ConfigOption = None,
) -> None:
    """Find out what a PACS takes, before any result depends on it. Asks first: what is sent stays there.

    Sends the study of an invented patient, with every kind of object in every SOP class that a node can make, and
    prints for each whether its presentation context was accepted, whether it was stored, and whether it was found again
    (C-FIND, QIDO-RS, Storage Commitment). Exit status 0 when all that the profile needs got through, or could not be
    proven because the PACS offers no way to ask. A destination of the site's settings is asked as the node asks it:
    what is left out here is taken from there.
    """
    settings = settings_of(config)
    destination = _destination(settings, peer, calling, profile, qido)
    _agree(destination, yes)
    configure("warning", "probe-pacs")  # to standard error
    try:
        with progress() as bar:
            task = bar.add_task("", total=None)
            probed = probe(destination, settings, lambda what: bar.update(task, description=what))
    except NoAssociation as error:
        fail(str(error))
    out.print(_table(probed, destination))
    _remarks(probed)
    if any(row.stored for row in probed.rows):
        out.print(f"The study {STUDY_UID} stays there until somebody deletes it.", markup=False)
    else:
        out.print("Nothing was stored there.")
    if probed.lacking:
        fail(f"A destination of the profile {destination.profile} lacks: {'; '.join(probed.lacking)}.")


def _destination(
    settings: Settings, peer: str, calling: str | None, profile: str | None, qido: str | None
) -> Destination:
    """What is asked for over what the settings say of this peer."""
    if profile is not None and profile not in PROFILES:
        usage_error(f"{profile!r} is not one of the profiles: {', '.join(PROFILES)}")
    if qido and not qido.startswith(("http://", "https://")):
        usage_error("--qido takes an http or https address, such as https://pacs.example/dicom-web")
    asked = {"calling_ae_title": calling, "profile": profile, "qido_url": qido}
    try:
        to = Peer.parse(peer)
        known = _known(settings, to)
        return Destination.model_validate(known | {key: value for key, value in asked.items() if value is not None})
    except ValidationError:
        usage_error(f"--calling: {AE_TITLE_WANTED}")
    except ValueError as error:
        usage_error(str(error))


def _known(settings: Settings, to: Peer) -> dict[str, object]:
    """A destination of the settings at this address, else one that is called as the site's others are."""
    address = {"ae_title": to.ae_title, "host": to.host, "port": to.port}
    for one in settings.destinations:
        if (one.ae_title, one.host, one.port) == (to.ae_title, to.host, to.port):
            return one.model_dump()
    titles = {one.calling_ae_title for one in settings.destinations}
    return address | {"calling_ae_title": titles.pop() if len(titles) == 1 else settings.receive.ae_title}


def _agree(destination: Destination, yes: bool) -> None:
    ways = "C-FIND, QIDO-RS and Storage Commitment" if destination.qido_url else "C-FIND and Storage Commitment"
    classes = {uid for row in PROFILES.values() for named in row.sop_classes().values() for uid in named}
    said = [
        f"To {destination.key}, called by {destination.calling_ae_title}, this sends by C-STORE, priority LOW:",
        f"  one study of an invented patient: {PATIENT_NAME}, id {PATIENT_ID}, of {STUDY_DATE},",
        f"  Study Instance UID {STUDY_UID};",
        "  four invented images (Secondary Capture, MR), and one object of every kind a node makes, in every class:",
        *(f"    {name}" for name in sorted(map(class_name, classes))),
        f"  Then it asks by {ways} whether they are there.",
        "Each object says that it is a connection test and no result. They stay there until somebody deletes them;",
        "sent again by the same version they are the same objects.",
    ]
    for line in said:
        err.print(line, markup=False, soft_wrap=True)
    agree_to_send(yes)


def agree_to_send(yes: bool) -> None:
    """Returns when a person, or --yes, says that it may be sent; else ends the command."""
    if yes:
        return
    if not is_terminal():
        usage_error("Nothing was sent: nobody can be asked here. Say --yes to send it.")
    if not typer.confirm("Send it?", err=True):
        fail("Nothing was sent.")


def is_terminal() -> bool:
    return sys.stdin.isatty()


def _table(probed: Probed, destination: Destination) -> Table:
    table = Table(title=f"{destination.key}, profile {destination.profile}")
    rows = [_cells(row, probed) for row in _merged(probed)]
    widths = column_widths([HEADINGS, *([cell.plain for cell in cells] for cells in rows)], out.width)
    for heading, width in zip(HEADINGS, widths, strict=True):
        table.add_column(heading, width=width, overflow="fold")
    for cells in rows:
        table.add_row(*cells)
    return table


def _cells(row: Row, probed: Probed) -> list[Text]:
    return [
        Text("invented image" if row.kind == SOURCE else row.kind.replace("_", " ")),
        Text(class_name(row.sop_class_uid).removesuffix(" Storage")),
        Text(_needed(row, probed)),
        _mark(row.accepted, row.context),
        Text("-") if not row.accepted else _mark(row.stored, _status(row)),
        _found(row),
    ]


def _needed(row: Row, probed: Probed) -> str:
    same = {one.sop_class_uid for one in probed.rows if (one.kind, one.needed) == (row.kind, "yes")}
    return "one of these" if row.needed == "yes" and len(same) > 1 else row.needed


def _merged(probed: Probed) -> list[Row]:
    """Rows that say the same of the same kind and class stand once: the slices."""
    return list(dict.fromkeys(probed.rows))


def _mark(good: bool, text: str) -> Text:
    return Text(text, style="green" if good else "bold red")


def _status(row: Row) -> str:
    return "no answer" if row.status is None else f"0x{row.status:04X}"


def _found(row: Row) -> Text:
    if row.found is Found.NOT_ASKED:
        return Text("-")
    words = f"{row.found.value} ({row.how})" if row.how else row.found.value
    style = {Found.YES: "green", Found.UNPROVABLE: "yellow"}.get(row.found, "bold red")
    return Text(words, style=style)


def _remarks(probed: Probed) -> None:
    for way in probed.asked:
        out.print(f"{way.name}: {way.words}", markup=False)
    for remark in dict.fromkeys(row.remark for row in probed.rows if row.remark):
        out.print(remark, markup=False)
