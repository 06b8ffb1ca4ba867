"""What `opentriage check-config` says of the adapters: choices that are allowed, and dangerous or without effect."""

from collections.abc import Iterator
from pathlib import Path

from config import Settings
from config.adapters import Adapter, Hl7Adapter, UpsAdapter, WebhookAdapter
from sr_writer.adapters.telling import secret
from sr_writer.adapters.webhook import SECRET_MIN_BYTES


def adapter_warnings(settings: Settings) -> Iterator[str]:
    """A sentence for each."""
    for adapter in settings.adapters:
        yield from (f"adapters: {adapter.key}: {words}" for words in _words(adapter))


def _words(adapter: Adapter) -> Iterator[str]:
    if adapter.ca_file.name and not adapter.ca_file.is_file():
        yield f"ca_file {adapter.ca_file} is no file"
    if isinstance(adapter, Hl7Adapter):
        if not adapter.tls:
            yield "tls is off, so the patient's name and id cross the network in the clear"
    elif isinstance(adapter, UpsAdapter):
        if adapter.url.startswith("http:"):
            yield "http, so the patient's name and id cross the network in the clear"
        if adapter.token_file.name:
            yield from _secret("token_file", adapter.token_file, 1)
    elif isinstance(adapter, WebhookAdapter):
        if adapter.url.startswith("http:"):
            yield "http, so anybody on the way can read which study is urgent"
        yield from _secret("secret_file", adapter.secret_file, SECRET_MIN_BYTES)


def _secret(setting: str, path: Path, least: int) -> Iterator[str]:
    try:
        found = secret(path)
        others = path.stat().st_mode & 0o007
    except OSError as error:
        yield f"{setting} {path} cannot be read ({error.strerror}), so nothing is told until it can"
        return
    if len(found) < least:
        yield f"{setting} {path} holds fewer than {least} bytes, so nothing is told until it holds more"
    if others:
        yield f"{setting} {path} can be read by everybody on this machine"
