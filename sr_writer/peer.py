"""Whom an association is opened with."""

from typing import Protocol

from config.settings import OutgoingTls


class Peer(Protocol):
    """A destination, or a sender that is told what we keep of what it sent."""

    @property
    def key(self) -> str:
        """Its name in sentences, logs and metrics."""

    @property
    def ae_title(self) -> str: ...

    @property
    def host(self) -> str: ...

    @property
    def port(self) -> int: ...

    @property
    def tls(self) -> OutgoingTls:
        """Whether and how the association is secured."""

    @property
    def calling_ae_title(self) -> str:
        """How we call ourselves there."""
