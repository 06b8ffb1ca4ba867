"""Of `opentriage doctor`: the node itself: settings, ledger, models, certificates, and its health where it runs."""

import time
from collections.abc import Iterator
from datetime import datetime

from config import Settings
from inference.engines import candidates
from inference.errors import PackageError, ProviderError
from inference.package import installed
from inference.verify import verify
from ledger.clock import seconds_now
from ledger.database import HEAD
from ledger.errors import LedgerUnavailable, OpenTriageError
from ledger.presence import is_there, place
from ledger.schema import state_of
from ledger.soundness import check_writable, first_damage
from node import notices
from node.checkup.lines import Line, failure, ok, warning
from node.checkup.machine import runs
from node.watching import certificates
from node.watching.health import HealthCheck
from node.wiring import open_ledger

CLOCKS_APART_S = 1.0
READ_THROUGH_S = 20.0  # of the time that all checks have


def settings_warned(settings: Settings) -> Iterator[Line]:
    """Only how many: check-config says which."""
    from node.commands.check_config import warnings

    count = len(list(warnings(settings)))
    if count:
        do = "`opentriage check-config`, with the same --config, names each, and what is risky about this machine."
        yield warning("settings", f"risky choices: {count}", do)
    else:
        yield ok("settings", "no risky choice")


def ledger(settings: Settings) -> Iterator[Line]:
    """There, of our schema, and of our time. Nothing is created and no schema changed."""
    what, url = "ledger", settings.database_url
    try:
        if not is_there(url):
            yield ok(what, f"none yet at {place(url)}: it is made at the first start")
            return
        state = state_of(url)
        check_writable(url)
        theirs, ours = seconds_now(url), time.time()
    except (OpenTriageError, ModuleNotFoundError) as error:
        said = str(error) if isinstance(error, OpenTriageError) else f"{error.name} is not installed"
        yield failure(what, f"{place(url)}: {said}", "See docs/runbooks/ledger-unavailable.md.")
        return
    found = f"{state.place}: schema {state.schema}, {state.studies} studies, {state.waiting} jobs wait"
    if state.schema == HEAD:
        yield ok(what, found)
    elif state.schema < HEAD:
        yield warning(what, found, f"The next start brings it to {HEAD}, after a copy (`opentriage ledger`).")
    else:
        yield failure(what, f"{found}; this program knows {HEAD}", "Use the release that wrote it, or roll it back.")
    if state.parked:
        yield warning("parked jobs", f"{state.parked}", "`opentriage release` lists them with their reasons.")
    yield from _whole(url)
    apart = theirs - ours
    if abs(apart) > CLOCKS_APART_S:
        yield warning("ledger: clock", f"{apart:+.1f} s from this machine's", "Synchronise both by NTP.")
    else:
        yield ok("ledger: clock", f"{apart:+.2f} s from this machine's")


def _whole(url: str) -> Iterator[Line]:
    """Of a ledger that is one file."""
    what = "ledger: its file"
    try:
        damage = first_damage(url, READ_THROUGH_S)
    except LedgerUnavailable as error:
        damage = str(error)
    if damage:
        do = "Stop the node, keep the folder as it is, restore a backup: docs/runbooks/ledger-unavailable.md."
        yield failure(what, f"damaged: {damage}", do)
    elif damage is not None:
        yield ok(what, "whole (PRAGMA quick_check)")
    elif url.startswith("sqlite"):
        yield ok(what, f"too large to be read through in {READ_THROUGH_S:.0f} s: nobody says whether it is whole")


def provider(settings: Settings) -> Iterator[Line]:
    """What runs the models: what the analyser says where it runs, else what would be tried first."""
    looking = notices.read(settings, "analyse") if runs(settings) else {}
    if looking:
        found = f"the analyser runs on {looking.get('provider')}"
        if looking.get("degraded"):
            yield warning("provider", f"{found}, less than hoped for", "See its log; docs/runbooks/gpu-lost.md.")
        else:
            yield ok("provider", found)
        return
    try:
        yield ok("provider", f"{candidates(settings.look.provider)[0]} would be used")
    except ProviderError as error:
        yield failure("provider", str(error), "Install it, or choose another in look.provider.")


def models(settings: Settings) -> Iterator[Line]:
    """Each package's hashes, and its golden images on this machine's processor."""
    try:
        found = installed(settings.look)
    except PackageError as error:
        yield failure("models", str(error), "`opentriage models list` says what is there.")
        return
    if not found.packages:
        yield failure("models", "none can be used: no image would be looked at", "Install one; see docs/models.md.")
    for one in found.refused:
        yield failure(f"model {one.name}", one.sentence, "Install the package again.")
    for manifest in found.passed_over:
        do = "Add its licence to look.accept_licences if you may use it."
        yield warning(f"model {manifest.name} {manifest.version}", f"not used: {manifest.licence.weights}", do)
    for package in found.packages:
        what = f"model {package.manifest.name} {package.manifest.version}"
        if problems := verify(package.folder):
            yield failure(what, "; ".join(problems), "Install the package again; see docs/models.md.")
        else:
            yield ok(what, "hashes hold, golden images give the scores that they should")


def tls(settings: Settings) -> Iterator[Line]:
    """Every certificate that the settings name."""
    now = certificates.today()
    for error in certificates.errors(settings.receive.tls, now):
        yield failure("certificate", error, "See docs/runbooks/certificate-expired.md.")
    for said in certificates.warnings(settings.receive.tls, now):
        yield warning("certificate", said, "See docs/tls.md.")
    for name, until in certificates.named(settings):
        yield _certificate(name, until, now)


def _certificate(name: str, until: datetime | None, now: datetime) -> Line:
    if until is None:
        return failure(name, "cannot be read", "See that the file is there, PEM, and readable for the node's user.")
    left = (until - now).days
    found = f"valid until {until:%Y-%m-%d}, {left} days"
    if left < 0:
        return failure(name, f"expired on {until:%Y-%m-%d}", "See docs/runbooks/certificate-expired.md.")
    if left < certificates.SOON_DAYS[-1]:
        return warning(name, found, "Renew it now; see docs/runbooks/certificate-expired.md.")
    return ok(name, found)


def health(settings: Settings) -> Iterator[Line]:
    """What /healthz says, where a node runs."""
    if not runs(settings):
        if is_there(settings.database_url):
            do = "Start it (systemctl start opentriage); its log says last why it ended."
            yield warning("node", "does not run on this state folder, where one has run", do)
        else:
            yield ok("node", "has not run on this state folder yet")
        return
    ledger = open_ledger(settings, must_exist=True)
    try:
        found = HealthCheck(settings, ledger).check()
    finally:
        ledger.close()
    for reason in found.reasons:
        yield failure("health", reason, "See docs/monitoring.md.")
    for alarm in found.alarms:
        yield warning("health", alarm, "See docs/monitoring.md.")
    if not found.reasons:
        yield ok("health", "the node runs and is healthy")
