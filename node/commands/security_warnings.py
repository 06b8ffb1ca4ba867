"""What `opentriage check-config` says of choices that let in, let out or lay open more than they must (SECURITY.md)."""

import ipaddress
import os
import resource
import stat
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from config import Settings
from inference import landlock, seccomp
from ledger.reach import is_plain, password_in
from node.running import private_state
from node.running.confine import lacking
from node.watching import volume
from node.watching.volume import Kept


def security_warnings(settings: Settings) -> Iterator[str]:
    """A sentence for each, from the settings alone."""
    yield from _received(settings)
    yield from _sent(settings)
    yield from _shown(settings)
    if not settings.audit.is_told:
        yield (
            "audit.repository_host: none, so the audit trail is on this machine alone: who takes the machine takes the "
            "trail (audit.heads_file on another machine shows at least that it was cut)"
        )
    if is_plain(settings.database_url):
        yield "node.database_url: PostgreSQL without sslmode=verify-full: what the ledger holds crosses in the clear"


def machine_warnings(settings: Settings, config: Path | None = None) -> Iterator[str]:
    """A sentence for each, from this machine, this user and these files."""
    if os.geteuid() == 0:
        yield "this is root: run the node as a user of its own, who owns node.state_dir and nothing else"
    yield from _confinement(settings)
    yield from _at_rest(settings)
    yield from _files(settings)
    if config is not None and password_in(settings.database_url) and _mode(config) & 0o077:
        yield (
            f"{config}: others can read it, and node.database_url in it holds a password: chmod 600, or leave the "
            "password to PGPASSFILE"
        )


def _received(settings: Settings) -> Iterator[str]:
    receive = settings.receive
    away = not _on_loopback(receive.host)
    bound = {peer.key for peer in settings.peers}
    if away and not receive.allowed_calling_ae_titles and not receive.allowed_networks:
        yield "receive: anybody on the network may send (allowed_calling_ae_titles and allowed_networks are empty)"
    elif away and bound and not receive.allowed_calling_ae_titles:
        yield "receive.allowed_calling_ae_titles: empty, so titles that are not in [[peers]] are anybody's"
    if away and not receive.tls.enabled:
        yield "receive.tls: off, so images and the names in them cross the network in the clear"
    elif away and receive.tls.mutual and not bound:
        yield "peers: none, so whoever has a certificate of receive.tls.ca_file may call by any AE title"
    own = [title.strip() for title in receive.allowed_calling_ae_titles]
    if own and bound.issuperset(own):
        yield (
            "receive.allowed_calling_ae_titles: each is bound to a peer, so the node has no title to call itself "
            "by: add a title of its own, or /healthz is never green"
        )


def _sent(settings: Settings) -> Iterator[str]:
    for heading, peers in (
        ("destinations", settings.destinations),
        ("commitment_requestors", settings.commitment_requestors),
    ):
        for one in peers:
            if not one.tls.enabled and not _on_loopback(one.host):
                yield f"{heading}: {one.key}: tls is off, so what is said of patients crosses the network in the clear"
            elif one.tls.enabled and not one.tls.verify_host:
                yield f"{heading}: {one.key}: tls.verify_host is off: any certificate of its authority passes for it"
    for destination in settings.destinations:
        if destination.qido_url.startswith("http:") and not destination.tls.enabled:
            yield f"destinations: {destination.key}: qido_url is http, so it can be read and answered by others"


def _shown(settings: Settings) -> Iterator[str]:
    web = settings.web
    if web.is_on_loopback:
        return
    if not web.tls.enabled:
        yield "web.insecure_plaintext: tokens and what they open cross the network in the clear"
    if web.open_off_loopback:
        yield (
            "web.open_off_loopback: the bare list, health and metrics are open to the network without a token; they "
            "hold no names, but study UIDs"
        )


def _confinement(settings: Settings) -> Iterator[str]:
    if not settings.node.confine:
        yield "node.confine: off, so whoever takes over one part of the node by a hostile image has all of it"
        if resource.getrlimit(resource.RLIMIT_CORE)[0]:
            yield "core dumps are on (ulimit -c), and a core file holds images and names: set the limit to 0"
        return
    for words in lacking(landlock.abi(), seccomp.available()):
        yield f"this machine cannot hold back what the parts of the node do not need: {words}"


def _at_rest(settings: Settings) -> Iterator[str]:
    state = settings.node.state_dir
    found = volume.encryption(state)
    if found.kept is Kept.PLAIN:
        yield (
            f"node.state_dir: {state} lies on a volume that this machine does not encrypt ({found.why}): who takes the "
            "disk has every image and name, unless the drive or the hypervisor encrypts it"
        )
    elif found.kept is Kept.UNKNOWN:
        yield f"node.state_dir: cannot tell whether {state} is encrypted where it lies ({found.why}): see to it"
    if loose := list(private_state.too_open(state)):
        yield (
            f"node.state_dir: {len(loose)} files or folders can be read by others, such as {loose[0]}; the node mends "
            "this when it starts"
        )


def _files(settings: Settings) -> Iterator[str]:
    for name, path in _keys(settings, ""):
        if _mode(path) & 0o007:
            yield f"{name}: {path} can be read by everybody on this machine"


def _keys(part: object, name: str) -> Iterator[tuple[str, Path]]:
    """Every key file that the settings name. That of [receive.tls] is looked at elsewhere."""
    if isinstance(part, BaseModel):
        for field in type(part).model_fields:
            inner = f"{name}.{field}" if name else field
            if field != "key_file":
                yield from _keys(getattr(part, field), inner)
            elif getattr(part, field) != Path() and name != "receive.tls":
                yield inner, getattr(part, field)
    elif isinstance(part, tuple):
        for one in part:
            yield from _keys(one, name)


def _mode(path: Path) -> int:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return 0


def _on_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
