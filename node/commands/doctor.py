"""`opentriage doctor`."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from typing import Annotated

import typer
from rich.text import Text

from config import Settings
from config.settings import Destination
from node.checkup import machine, peers, this_node
from node.checkup.lines import Check, Level, Line, failure, ok, run, warning
from node.commands.probe_pacs import agree_to_send
from node.console import EXIT_FAILED, ConfigOption, JsonOption, err, out, settings_of, usage_error
from node.roles import count_desk
from node.trying.probe import Probed, probe
from node.trying.sending import NoAssociation
from sr_writer.probe_study import PATIENT_ID, PATIENT_NAME, STUDY_DATE, STUDY_UID

app = typer.Typer(add_completion=False)
WITHIN_S = 60.0
_STYLES = {Level.OK: "green", Level.WARNING: "yellow", Level.FAILURE: "bold red"}
_NODE: tuple[tuple[str, Callable[[Settings], Iterator[Line]]], ...] = (
    ("settings", this_node.settings_warned),
    ("port of [receive]", machine.receive_port),
    ("port of [web]", machine.web_port),
    ("disk", machine.disk),
    ("memory", machine.memory),
    ("clock", machine.clock),
    ("ledger", this_node.ledger),
    ("certificates", this_node.tls),
    ("provider", this_node.provider),
    ("models", this_node.models),
)


@app.command()
def doctor(
    config: ConfigOption = None,
    as_json: JsonOption = False,
    send_test_patient: Annotated[
        bool,
        typer.Option(
            "--send-test-patient",
            help="Also send the study of an invented patient to every destination, and look what is found again. Asks.",
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before sending the test patient.")] = False,
    within: Annotated[float, typer.Option(metavar="SECONDS", help="How long all checks may take.", min=1.0)] = WITHIN_S,
) -> None:
    """Look at everything that the node depends on, and say for each what was found and what to do about it.

    Ports; every destination by C-ECHO and by negotiation (what it would take, in which transfer syntax); adapters by a
    connection; disk: room, file system, write cache, how long a sync takes; memory; clocks; the ledger and its schema;
    certificates; every model's hashes and golden images; and the node's own health where it runs. Nothing is stored
    anywhere and no message is sent, beside a running node or without one. Run it as the node's user.

    Exit status 0 when nothing failed, 1 when something did; warnings alone are 0.
    """
    settings = settings_of(config)
    if send_test_patient:
        _agree(settings, yes)
    lines = []
    for line in run(_checks(settings), within):
        lines.append(line)
        _print(line, as_json)
    for line in _test_patient(settings) if send_test_patient else ():
        lines.append(line)
        _print(line, as_json)
    _sum_up(lines)


def _checks(settings: Settings) -> dict[str, Check]:
    checks: dict[str, Check] = {name: partial(check, settings) for name, check in _NODE}
    for one in settings.destinations:
        checks[f"destination {one.key}"] = partial(peers.destination, one, settings)
    if archive := count_desk.archive_of(settings):
        checks["study.count_at"] = partial(peers.counted, archive, settings)
    for adapter in settings.adapters:
        checks[f"adapter {adapter.key}"] = partial(peers.adapter, adapter)
    for requestor in settings.commitment_requestors:
        checks[f"commitment requestor {requestor.key}"] = partial(peers.requestor, requestor)
    if settings.audit.is_told:
        checks["audit repository"] = partial(peers.repository, settings)
    checks["node"] = partial(this_node.health, settings)
    return checks


def _print(line: Line, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(asdict(line)))
        return
    said = Text.assemble((f"{line.level.value:<8}", _STYLES[line.level]), f"{line.what}: {line.found}")
    out.print(said)
    if line.do:
        out.print(Text(f"        {line.do}", style="dim" if line.level is Level.OK else ""))


def _sum_up(lines: list[Line]) -> None:
    count = Counter(line.level for line in lines)
    words = f"{count[Level.OK]} ok, {count[Level.WARNING]} warnings, {count[Level.FAILURE]} failures"
    err.print(words, style=_STYLES[Level.FAILURE if count[Level.FAILURE] else Level.OK], markup=False)
    if count[Level.FAILURE]:
        raise typer.Exit(EXIT_FAILED)


# --- the test patient ---


def _agree(settings: Settings, yes: bool) -> None:
    if not settings.destinations:
        usage_error("--send-test-patient: the settings name no destination")
    names = ", ".join(f"{one.key} ({one.ae_title}@{one.host}:{one.port})" for one in settings.destinations)
    for said in (
        f"To {names} this sends one study of an invented patient by C-STORE, priority LOW:",
        f"  {PATIENT_NAME}, id {PATIENT_ID}, of {STUDY_DATE}, Study Instance UID {STUDY_UID}:",
        "  four invented images and one object of every kind that a node makes, in every class. Each says that it is a",
        "  connection test and no result. They stay there until somebody deletes them.",
    ):
        err.print(said, markup=False, soft_wrap=True)
    agree_to_send(yes)


def _test_patient(settings: Settings) -> Iterator[Line]:
    for one in settings.destinations:
        try:
            found = probe(one, settings, lambda step: None)
        except NoAssociation as error:
            yield failure(f"test patient at {one.key}", str(error), "Nothing was stored there.")
        else:
            yield _came_back(one, found)


def _came_back(one: Destination, found: Probed) -> Line:
    what = f"test patient at {one.key}"
    stored = sum(row.stored for row in found.rows)
    ways = "; ".join(f"{way.name} {way.words}" for way in found.asked)
    said = f"{stored} of {len(found.rows)} objects stored" + (f"; {ways}" if ways else "")
    if found.lacking:
        do = f"`opentriage probe-pacs` shows each object; its profile lacks {', '.join(found.lacking)}."
        return failure(what, said, do)
    if not any(way.uids is not None for way in found.asked):
        return warning(what, said, "Nobody can say whether it holds them: look for the study there.")
    return ok(what, said)
