"""`opentriage check-config`."""

import ipaddress
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import typer
from rich.table import Table
from rich.text import Text

from config import Settings, origins
from config.settings import LookSettings, ReceiveSettings
from inference.engines import candidates
from inference.errors import PackageError, ProviderError
from inference.finding_names import unknown_findings
from inference.licence import unaccepted
from inference.manifest import Manifest
from inference.package import check_enough, installed
from inference.session import behaving
from node.commands.adapter_warnings import adapter_warnings
from node.commands.commitment_warnings import commitment_warnings
from node.commands.retention_warnings import retention_warnings
from node.commands.security_warnings import machine_warnings, security_warnings
from node.console import EXIT_FAILED, ConfigOption, err, out, settings_of
from node.watching import certificates, free_space, no_model
from sr_writer.profiles import PARAMETRIC_MAP, PRESENTATION_STATE, PROFILES
from sr_writer.words import unspeakable

app = typer.Typer(add_completion=False)
NO_BOXES = "report.localization: box, but no package in use draws boxes or has a measured pointing accuracy"


@app.command("check-config")
def check_config(config: ConfigOption = None) -> None:
    """Print every setting, its effective value and where it came from; then name what stops the start, and warn of
    choices that are allowed but risky. Exit status 2 and one sentence per mistake when the file cannot be used, 1 when
    the node would not start with it on this machine, or nobody could send to it: a package that look.models names or a
    provider is not to be had, a file of receive.tls is missing, expired or open to everybody.
    """
    settings = settings_of(config)
    table = Table(box=None, pad_edge=False)
    table.add_column("setting", no_wrap=True)
    for heading in ("value", "from"):
        table.add_column(heading, overflow="fold")
    for key, value, origin in origins(settings, config):
        style = "" if origin == "default" else "bold"
        table.add_row(Text(key, style), Text(_shown(key, value), style), Text(origin, style))
    out.print(table)
    models = _models(settings)
    errors = [*models.errors, *certificates.errors(settings.receive.tls, certificates.today())]
    for error in errors:
        err.print(f"error: {error}", style="bold red", markup=False)
    for warning in (*warnings(settings), *machine_warnings(settings, config), *models.warnings):
        err.print(f"warning: {warning}", style="yellow", markup=False)
    if errors:
        raise typer.Exit(EXIT_FAILED)


def _shown(key: str, value: object) -> str:
    if key == "node.database_url" and "@" in str(value):
        scheme, _, rest = str(value).partition("://")
        return f"{scheme}://…@{rest.rpartition('@')[2]}"  # never a password
    if key in ("destinations", "commitment_requestors", "peers", "adapters") and isinstance(value, tuple):
        return ", ".join(one.key for one in value) or "none"
    return "not set" if value in ("", (), {}, Path()) else str(value)


def warnings(settings: Settings) -> Iterator[str]:
    """A sentence for each choice that a person should have made on purpose."""
    receive = settings.receive
    if not settings.destinations:
        yield "destinations: none, so reports are made and kept but sent nowhere"
    yield from security_warnings(settings)
    yield from certificates.warnings(receive.tls, certificates.today())
    if receive.allowed_networks and not _allows_own_echo(receive):
        yield "receive.allowed_networks: leaves out the node itself: its own C-ECHO fails, /healthz is never green"
    if not receive.require_called_ae_title:
        yield "receive.require_called_ae_title: off, so studies meant for another node are taken"
    if settings.look.unknown_age == "accept":
        yield "look.unknown_age: images of unknown age are analysed although a package was validated for some ages only"
    if settings.decide.critical_flags_in_dicom:
        yield "decide.critical_flags_in_dicom: flags are written into reports that leave the node"
    if settings.heartbeat.every_s == 0:
        yield "heartbeat.every_s: 0, so nothing proves the whole path while no study comes"
    if "HIGH" not in (settings.decide.critical_priority, settings.decide.present_priority):
        yield "decide: nothing ever becomes HIGH"
    yield from _reports(settings)
    yield from adapter_warnings(settings)
    yield from commitment_warnings(settings)
    yield from retention_warnings(settings)
    yield from _folders(settings)


def _reports(settings: Settings) -> Iterator[str]:
    """Wishes that nothing comes of."""
    said = settings.recommend.model_dump()
    texts = {f"present.{label}": text for label, text in said.pop("present").items()} | said
    for name, text in texts.items():
        if word := unspeakable(text):
            yield f"recommend.{name}: no reader may see the word {word!r}: reports leave this sentence out"
    if "critical" in settings.report.acr_categories and not settings.decide.critical_flags_in_dicom:
        yield "report.acr_categories: critical is never written while decide.critical_flags_in_dicom is off"
    for destination in settings.destinations:
        name, profile = destination.profile, PROFILES[destination.profile]
        asked = {PRESENTATION_STATE: destination.presentation_state, PARAMETRIC_MAP: destination.parametric_map}
        for kind, wanted in asked.items():
            if wanted and kind not in profile.sop_classes():
                yield f"destinations: {destination.key}: {kind} is not sent, the profile {name} has none"
        if profile.boxes_only and settings.report.localization != "box":
            yield f"destinations: {destination.key}: {name} gets measurements with boxes only, see report.localization"


@dataclass
class Models:
    """What the analyser would say at its start. errors: what it would not start with."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def _models(settings: Settings) -> Models:
    said, look = Models(), settings.look
    try:
        candidates(look.provider)
    except ProviderError as error:
        said.errors.append(f"look: the node will not start: {error}")
    try:
        found = behaving(installed(look))
        said.warnings += _licences(look, found.manifests)
        said.warnings += unknown_findings(settings.decide, settings.recommend, found.manifests)
        said.warnings += (f"look: not used: {unaccepted(manifest, look)}" for manifest in found.passed_over)
        check_enough(found.packages, found.refused, look)
        said.warnings += [f"look: {no_model.SENTENCE}"] if not found.packages else []
        said.warnings += (f"look: {one.sentence}" for one in found.refused)
        if settings.report.localization == "box" and not any(one.manifest.shows_boxes for one in found.packages):
            said.warnings.append(NO_BOXES)
    except PackageError as error:
        said.errors.append(f"look: the node will not start: {error}")
    return said


def _licences(look: LookSettings, manifests: tuple[Manifest, ...]) -> Iterator[str]:
    for accepted in dict.fromkeys(look.accept_licences):
        under = [manifest for manifest in manifests if manifest.licence.weights == accepted]
        if not under:
            yield f"look.accept_licences: no installed package has weights under {accepted}; is it misspelt?"
        elif used := [manifest.name for manifest in under if manifest.licence.non_commercial]:
            names = ", ".join(used)
            yield f"look.accept_licences: weights that allow no commercial use are used ({accepted}: {names})"


def _folders(settings: Settings) -> Iterator[str]:
    state = settings.node.state_dir
    existing = next((folder for folder in (state, *state.parents) if folder.exists()), Path("/"))
    if not os.access(existing, os.W_OK):
        yield f"node.state_dir: {existing} is not writable for this user"
    models = settings.look.models_dir
    if models != Path() and not models.is_dir():
        yield f"look.models_dir: {models} is not a folder"
    if full := free_space.too_little(settings):
        yield full


def _allows_own_echo(receive: ReceiveSettings) -> bool:
    own = "127.0.0.1" if receive.host in ("0.0.0.0", "") else "::1" if receive.host == "::" else receive.host  # noqa: S104
    try:
        address = ipaddress.ip_address(own)
    except ValueError:
        return True  # a name: not ours to resolve here
    return any(address in ipaddress.ip_network(network) for network in receive.allowed_networks)
