"""An AE title that is bound to a certificate or a network is taken from nobody else: over every engine, in real TLS."""

import hashlib
import ssl
from pathlib import Path

import pytest

from config.settings import PeerBinding
from ledger.audit import AuditKind
from scp.callers.observing import Observer
from tests.support.certificates import Authority, Pair
from tests.support.rawscu import RawScu, Rejected
from tests.support.receiving import Receiving, StartReceiving
from tests.support.waiting import wait_until

STRANGER = (1, 1, 3)  # rejected permanently, by the service user: calling AE title not recognised (PS3.8 9.3.4)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "pki")


def fingerprint(pair: Pair) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pair.certificate.read_text())).hexdigest()


def tls(authority: Authority) -> dict[str, object]:
    own = authority.issue("node")
    return {
        "enabled": True,
        "certificate_file": own.certificate,
        "key_file": own.key,
        "ca_file": authority.certificate,
    }


def calls(node: Receiving, title: str, authority: Authority, shown: Pair | None) -> tuple[int, int, int] | None:
    """How the association was rejected; None: it was not."""
    context = None
    if shown is not None:
        context = ssl.create_default_context(cafile=authority.certificate)
        context.check_hostname = False
        context.load_cert_chain(shown.certificate, shown.key)
    try:
        with RawScu(node.address, calling=title, tls=context) as scu:
            assert scu.echo() == 0
    except Rejected as rejected:
        return rejected.triple
    return None


@pytest.mark.parametrize("by", ["fingerprint", "fingerprint with colons", "name"])
def test_a_bound_title_needs_its_certificate_and_the_certificate_speaks_for_no_other(
    start: StartReceiving, authority: Authority, by: str
) -> None:
    ct, mr = authority.issue("ct1"), authority.issue("mr1")
    digest = fingerprint(ct).upper()
    colons = ":".join(digest[i : i + 2] for i in range(0, 64, 2))
    prints = {"fingerprint": (digest,), "fingerprint with colons": (colons,)}.get(by, ())
    bound = PeerBinding(ae_title="CT1", certificate_sha256=prints, certificate_names=("CT1",) if by == "name" else ())
    node = start(tls=tls(authority), peers=[bound])
    assert calls(node, "CT1", authority, ct) is None
    assert calls(node, "CT1", authority, mr) == STRANGER
    assert calls(node, "MR1", authority, mr) is None  # free, for it is not bound
    assert calls(node, "MR1", authority, ct) == STRANGER


def test_a_bound_title_comes_from_its_network_only(start: StartReceiving, authority: Authority) -> None:
    here = PeerBinding(ae_title="HERE", networks=("127.0.0.0/8",))
    node = start(peers=[here, PeerBinding(ae_title="THERE", networks=("10.0.0.0/8",))])
    assert calls(node, "HERE", authority, None) is None
    assert calls(node, "THERE", authority, None) == STRANGER


def test_who_is_turned_away_is_counted_and_stands_in_the_audit_trail_once(
    start: StartReceiving, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Observer, "_loop", lambda self: None)  # nothing is handed over before it stops
    node = start(peers=[PeerBinding(ae_title="THERE", networks=("10.0.0.0/8",))])
    for _ in range(3):
        calls(node, "THERE", authority, None)
    node.receiver.stop(0.0)  # hands over what was counted
    assert [(kind.reason, kind.count) for kind in node.ledger.turned_away("THERE")] == [("binding", 3)]
    [alert] = [line for line in node.ledger.audit_log() if line.kind is AuditKind.SECURITY_ALERT]
    assert (alert.actor, alert.peer) == ("ae:THERE", "127.0.0.1")
    assert alert.detail == {"what": "turned_away", "reason": "binding", "count": 3}


def test_a_handshake_that_fails_stands_in_the_audit_trail(
    start: StartReceiving, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Observer, "_loop", lambda self: None)  # nothing is handed over before it stops
    node = start(tls=tls(authority))
    stranger = Authority(tmp_path / "other").issue("stranger")
    context = ssl.create_default_context(cafile=authority.certificate)
    context.check_hostname = False
    context.load_cert_chain(stranger.certificate, stranger.key)
    with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
        RawScu(node.address, tls=context)
    wait_until(lambda: node.receiver._observer.alerts._seen, within_s=60)
    node.receiver.stop(0.0)
    [alert] = [line for line in node.ledger.audit_log() if line.kind is AuditKind.SECURITY_ALERT]
    assert (alert.actor, alert.detail["reason"]) == ("node:receive", "tls_unknown_ca")
