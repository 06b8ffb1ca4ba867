"""Which certificate and which addresses speak for an AE title: alone, a title is a name that anybody can give."""

import hashlib
import ipaddress
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from config.settings import PeerBinding


@dataclass(frozen=True)
class Shown:
    """What a caller showed of himself. sha256: of his certificate, empty without one; names: DNS names of its subject
    alternative name, and its common name, in small letters."""

    address: str
    sha256: str = ""
    names: frozenset[str] = frozenset()


def shown_by(connection: object, address: str) -> Shown:
    """Of a connection after its handshake, if it is one in TLS."""
    if not isinstance(connection, ssl.SSLSocket):
        return Shown(address)
    der = connection.getpeercert(binary_form=True)
    if not der:
        return Shown(address)
    said: dict[str, Any] = connection.getpeercert() or {}
    names = {value for kind, value in said.get("subjectAltName", ()) if kind == "DNS"}
    names |= {value for parts in said.get("subject", ()) for kind, value in parts if kind == "commonName"}
    return Shown(address, hashlib.sha256(der).hexdigest(), frozenset(name.lower() for name in names))


class Bindings:
    """Immutable. A title that is bound is taken from nobody else; a certificate that is bound speaks for no other."""

    def __init__(self, peers: Iterable[PeerBinding]) -> None:
        self._peers = {peer.ae_title.strip(): peer for peer in peers}

    def __bool__(self) -> bool:
        return bool(self._peers)

    def admit(self, calling_ae_title: str, shown: Shown) -> bool:
        """Whether a caller may use this title."""
        title = calling_ae_title.strip()
        peer = self._peers.get(title)
        if peer is not None:
            return _is_his(peer, shown) and _from_there(peer, shown.address)
        return not any(other.names_certificates and _is_his(other, shown) for other in self._peers.values())


def _is_his(peer: PeerBinding, shown: Shown) -> bool:
    if not peer.names_certificates:
        return True
    prints = {text.replace(":", "").lower() for text in peer.certificate_sha256}
    return shown.sha256 in prints or not shown.names.isdisjoint(name.lower() for name in peer.certificate_names)


def _from_there(peer: PeerBinding, address: str) -> bool:
    return not peer.networks or is_in(address, map(ipaddress.ip_network, peer.networks))


def is_in(address: str, networks: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    """Whether an address, perhaps an IPv4 one in IPv6's clothes, is in one of the networks."""
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None)
    return any((mapped or found) in network for network in networks)
