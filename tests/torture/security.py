"""37: who may come in. Everybody who may not is refused and stands in the audit trail, and nobody else notices."""

import hashlib
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pynetdicom import build_context

from config.settings import DeliverSettings, Destination, OutgoingTls, Settings
from ledger.audit import AuditKind, Outcome
from ledger.ledger import Ledger
from ledger.store import Store
from sr_writer.association import associate
from sr_writer.errors import Unreachable
from tests.support.certificates import Authority, Pair
from tests.support.rawscu import IMPLICIT_LITTLE, VERIFICATION, associate_rq
from tests.torture.attackers import Healthy, Uses, percentile, require_back, unmoved
from tests.torture.experiment import Arm, Context, Control, register
from tests.torture.web_role import FOUR_GB, MIB, OPEN_DOOR, Web

ROUNDS, LONG = 8, 400
BASELINE_S = 1.0
P99_BOUND_S = 0.5  # generous: the handshakes of attackers and the healthy share two cores with whatever else runs
MEMORY_MORE_BYTES = 24 << 20
ACCEPTED = 2  # A-ASSOCIATE-AC


# --- DICOM ---


@dataclass(frozen=True)
class Caller:
    """Who calls, and as what the trail must know him. shown: his certificate; tls: False for none of it."""

    reason: str
    shown: Pair | None = None
    calling: str = "TESTSCU"
    called: str = "OPENTRIAGE"
    source: str = "127.0.0.1"
    tls: bool = True
    newest: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED


@dataclass
class Hospital:
    """Authorities, certificates, and the settings of a receiver that binds TESTSCU and CT1 each to one of them. MR1 is
    bound to none: whoever shows a certificate of the authority may call so."""

    folder: Path
    good: Authority = field(init=False)

    def __post_init__(self) -> None:
        self.good = Authority(self.folder / "pki")
        self.node, self.sender, self.ct1 = (self.good.issue(name) for name in ("node", "sender", "ct1"))
        self.expired, self.revoked = self.good.issue("expired", days=0), self.good.issue("withdrawn")
        self.stranger = Authority(self.folder / "other").issue("sender")
        self.crl = self.good.revoke(self.revoked)

    def receive(self) -> dict[str, object]:
        tls = {
            "enabled": True, "certificate_file": str(self.node.certificate), "key_file": str(self.node.key),
            "ca_file": str(self.good.certificate), "crl_file": str(self.crl),
        }  # fmt: skip
        return {
            "tls": tls, "allowed_calling_ae_titles": ["TESTSCU", "CT1", "MR1"], "allowed_networks": ["127.0.0.1/32"],
        }  # fmt: skip

    def peers(self) -> list[dict[str, object]]:
        bound = {"TESTSCU": self.sender, "CT1": self.ct1}
        return [{"ae_title": title, "certificate_sha256": [_sha256(pair)]} for title, pair in bound.items()]

    def attackers(self) -> dict[str, Caller]:
        return {
            # by a title that is bound to nothing: what refuses them is the handshake and nothing after it
            "wrong CA": Caller("tls_unknown_ca", self.stranger, calling="MR1"),
            "expired": Caller("tls_expired", self.expired, calling="MR1"),
            "revoked": Caller("tls_revoked", self.revoked, calling="MR1"),
            "no certificate": Caller("tls_no_certificate", calling="MR1"),
            "TLS 1.1": Caller("tls_protocol", self.sender, newest=ssl.TLSVersion.TLSv1_1),
            "plain": Caller("tls_protocol", tls=False),
            "certificate of another AE": Caller("binding", self.ct1),
            "title of another AE": Caller("binding", self.sender, calling="CT1"),
            "unknown AE": Caller("calling_ae_title", self.node, calling="NOBODY"),
            "wrong called AE": Caller("called_ae_title", self.sender, called="ELSEWHERE"),
            "wrong address": Caller("address", self.sender, source="127.0.0.3"),
        }

    def client(self, shown: Pair | None, newest: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version, context.maximum_version = ssl.TLSVersion.MINIMUM_SUPPORTED, newest
        if shown is not None:
            context.load_cert_chain(shown.certificate, shown.key)
        return context


def _sha256(pair: Pair) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pair.certificate.read_text())).hexdigest()


def _gets_in(address: tuple[str, int], hospital: Hospital, caller: Caller) -> bool:
    """Whether an association was accepted."""
    try:
        with closing(socket.create_connection(address, 10, (caller.source, 0))) as raw:
            connection = raw
            if caller.tls:
                connection = hospital.client(caller.shown, caller.newest).wrap_socket(raw)
            with closing(connection):
                contexts = [(VERIFICATION, (IMPLICIT_LITTLE,))]
                connection.sendall(associate_rq(contexts, caller.called, caller.calling))
                return connection.recv(1) == bytes([ACCEPTED])
    except OSError:
        return False


def associations(context: Context, leave_out: str = "", faults: tuple[str, ...] = ()) -> Arm:
    """leave_out: what the settings of a control lack. Each kind of caller calls; one that may keeps sending."""
    arm, hospital, rounds = Arm(), Hospital(context.folder), context.rounds(ROUNDS, LONG)
    receive, peers = hospital.receive(), hospital.peers()
    if leave_out == "crl":
        receive["tls"].pop("crl_file")  # type: ignore[attr-defined]
    if leave_out == "peers":
        peers = []
    client = hospital.client(hospital.sender)
    state = context.folder / "state"
    with (
        context.receiver(state, sections={"peers": peers}, faults=faults, **receive) as victim,
        context.receiver(context.scratch() / "state", sections={"peers": peers}, **receive) as other,
    ):
        before = Healthy(victim.address, context.rng, tls=client).send_for(BASELINE_S)
        uses, during = Uses.of(victim), Healthy(victim.address, context.rng, tls=client)
        beside = Healthy(other.address, context.rng, tls=client)
        with during.meanwhile(), beside.meanwhile():
            for _ in range(rounds):
                for name, caller in hospital.attackers().items():
                    let_in = _gets_in(victim.address, hospital, caller)
                    arm.counts["attackers"] += 1
                    arm.counts["refused"] += not let_in
                    arm.require(not let_in, f"{name}: let in")
        unmoved(arm, before, during, beside, P99_BOUND_S)
        require_back(arm, victim, uses, MEMORY_MORE_BYTES)
        victim.stop()
    _audited(arm, state, Counter(caller.reason for caller in hospital.attackers().values()), rounds)
    arm.broken = sorted(set(arm.broken))
    return arm


def _audited(arm: Arm, state: Path, wanted: Mapping[str, int], rounds: int) -> None:
    """Each refusal is in the trail, and none that was not."""
    found: Counter[str] = Counter()
    for detail in _alerts(state):
        found[str(detail.get("reason"))] += int(str(detail.get("count", 0)))
    arm.counts["audited"] = found.total()
    for reason, kinds in wanted.items():
        expected = kinds * rounds
        arm.require(found[reason] == expected, f"{reason}: {found[reason]} of {expected} are in the audit trail")


def _alerts(state: Path, *kinds: AuditKind) -> list[Mapping[str, object]]:
    settings = Settings.model_validate({"node": {"state_dir": state}})
    ledger = Ledger.open(settings.database_url, Store(state / "store"))
    try:
        lines, before = [], None
        while page := ledger.audit_log(before=before):
            lines += page
            before = page[-1].record_id
    finally:
        ledger.close()
    wanted = kinds or (AuditKind.SECURITY_ALERT,)
    return [line.detail for line in lines if line.kind in wanted and line.outcome is not Outcome.SUCCESS]


def tell_nobody() -> None:
    """A fault: refusals are counted nowhere."""
    from scp.callers.alerts import Alerts

    Alerts.turned_away = lambda self, peer, calling_ae_title, reason: None  # type: ignore[method-assign]


# --- what the node calls itself ---


def deliveries(context: Context, verify: bool = True) -> Arm:
    """The node calls peers that are not what they should be: nothing is said to any of them."""
    arm, hospital = Arm(), Hospital(context.folder)
    peers = {
        "wrong CA": (hospital.stranger, "127.0.0.1"),
        "expired": (hospital.expired, "127.0.0.1"),
        "revoked": (hospital.revoked, "127.0.0.1"),
        "name mismatch": (hospital.ct1, "127.0.0.2"),
    }
    for name, (pair, host) in peers.items():
        tls = OutgoingTls(enabled=True, ca_file=hospital.good.certificate, crl_file=hospital.crl, verify_host=verify)
        with _Listener(hospital, pair) as listener:
            to = Destination(name="PACS", ae_title="PACS", host=host, port=listener.port, tls=tls)
            with suppress(Unreachable):
                associate(
                    to, DeliverSettings(connect_timeout_s=20, response_timeout_s=5), [build_context(VERIFICATION)]
                )
            arm.counts["attackers"] += 1
            arm.counts["refused"] += not listener.heard
            arm.require(not listener.heard, f"{name}: it heard {len(listener.heard)} bytes of an association")
    return arm


class _Listener:
    """Shows a certificate, and keeps what it is told after the handshake."""

    def __init__(self, hospital: Hospital, pair: Pair) -> None:
        self.heard = b""
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pair.certificate, pair.key)
        self._server = socket.create_server(("0.0.0.0", 0))
        self.port: int = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> "_Listener":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.join(5)
        self._server.close()

    def _serve(self) -> None:
        with suppress(OSError):
            connection, _ = self._server.accept()
            connection.settimeout(20)
            with self._context.wrap_socket(connection, server_side=True) as secured:
                self.heard = secured.recv(1024)


# --- HTTP ---

WITHOUT_TOKEN = ("/worklist", "/studies/1.2.3", "/audit_log", "/openapi.json", "/docs")


def requests(context: Context, fault: str = "", capped: bool = True) -> Arm:
    arm, rounds = Arm(), context.rounds(2, 50)
    with Web(context.folder, fault, 4 * MIB if capped else 1 << 40) as web:
        healthy = partial(_reader, web)
        baseline, _ = _timed(healthy, BASELINE_S)
        resident = web.resident_bytes()
        stop, during, failed = threading.Event(), [], Counter[str]()
        reader = threading.Thread(target=_read_until, args=(healthy, stop, during, failed), daemon=True)
        reader.start()
        for _ in range(rounds):
            for name, status, allowed in _attacks(web):
                arm.counts["attackers"] += 1
                arm.counts["refused"] += status in allowed
                arm.require(status in allowed, f"{name}: answered {status}")
        taken = web.pours("/analyze", "operate", 64 * MIB)
        arm.counts["attackers"] += 1
        arm.figures["of a body without end"] = f"{taken / MIB:.0f} MiB taken of 64"
        arm.require(taken < 48 * MIB, f"{taken >> 20} MiB of a body without an end were taken")
        stop.set()
        reader.join(20.0)
        grown, left = web.resident_bytes() - resident, list((web.state / "uploads").glob("*"))
        before, after = percentile(baseline, 0.99), percentile(during, 0.99)
        arm.figures |= {"memory": f"{grown / MIB:+.1f} MB", "reader p99": f"{1e3 * before:.0f} -> {1e3 * after:.0f} ms"}
        arm.require(not failed.total(), f"{failed.total()} requests of somebody who may failed")
        arm.in_time(after <= max(2 * before, 1.0), f"a reader's p99 is {after:.2f} s, {before:.2f} s before")
        arm.require(grown <= 64 * MIB, f"{grown >> 20} MB of memory more than before")
        arm.require(not left, f"{len(left)} uploads are left")
        codes = Counter(str(detail.get("needed", "authentication")) for detail in _alerts_of(web))
    arm.counts["audited"] = codes.total()
    for needed in ("authentication", "operate", "admin"):
        arm.require(codes[needed] > 0, f"{needed}: nothing of it is in the audit trail")
    arm.broken = sorted(set(arm.broken))
    return arm


def _attacks(web: Web) -> Iterator[tuple[str, int, tuple[int, ...]]]:
    """What was tried, the answer, the answers that it may get. 429: too many wrong tokens of one address."""
    for path in WITHOUT_TOKEN:
        yield f"{path} without a token", web.ask("GET", path), (401,)
    yield "release without a token", web.ask("POST", "/jobs/1/release"), (401,)
    yield "release by a reader", web.ask("POST", "/jobs/1/release", "read"), (403,)
    yield "audit log by a reader", web.ask("GET", "/audit_log", "read"), (403,)
    yield "audit log by an operator", web.ask("GET", "/audit_log", "operate"), (403,)
    for token in ("expired", "revoked", "invented"):
        yield f"{token} token", web.ask("GET", "/worklist", token), (401, 429)
    for path in ("/analyze", "/studies"):
        yield f"4 GB to {path} without a token", web.announces(path, "", FOUR_GB), (401, 413)
        yield f"4 GB to {path}", web.announces(path, "operate", FOUR_GB), (413, 415)


def _reader(web: Web) -> bool:
    return web.ask("GET", "/worklist", "read") == 200


def _timed(act: Callable[[], bool], seconds: float) -> tuple[list[float], int]:
    stop, taken, failed = threading.Event(), list[float](), Counter[str]()
    timer = threading.Timer(seconds, stop.set)
    timer.start()
    _read_until(act, stop, taken, failed)
    return taken, failed.total()


def _read_until(act: Callable[[], bool], stop: threading.Event, taken: list[float], failed: Counter[str]) -> None:
    while not stop.is_set():
        began = time.monotonic()
        try:
            failed["failed"] += not act()
        except OSError:
            failed["failed"] += 1
        taken.append(time.monotonic() - began)
        stop.wait(0.02)


def _alerts_of(web: Web) -> list[Mapping[str, object]]:
    return _alerts(web.state, AuditKind.SECURITY_ALERT, AuditKind.AUTHENTICATION)


register(
    37, "associations of whoever may not: certificates, AE titles, addresses", associations, suite="hospital",
    without_the_revocation_list=Control(r"^revoked: let in", partial(associations, leave_out="crl")),
    without_the_bindings=Control(r"of another AE: let in", partial(associations, leave_out="peers")),
    with_nobody_told=Control(r"of \d+ are in the audit trail", partial(associations, faults=("security:tell_nobody",))),
)  # fmt: skip
register(
    37, "peers that are not what they should be are told nothing", deliveries, part="calls", suite="hospital",
    without_verifying_the_host=Control(r"^name mismatch: it heard", partial(deliveries, verify=False)),
)  # fmt: skip
register(
    37, "HTTP of whoever may not: no token, wrong role, expired, revoked; bodies of 4 GB", requests, part="http",
    suite="hospital",
    with_an_open_door=Control(r"without a token: answered", partial(requests, fault=OPEN_DOOR)),
    without_a_cap=Control(r"MiB of a body without an end were taken", partial(requests, capped=False)),
)  # fmt: skip
