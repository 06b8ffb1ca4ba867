"""An own C-ECHO: the proof that the node answers, not merely that it runs. Over TLS the node shows its own certificate;
where that would not let it in, being turned away has to be proof enough (node/watching/certificates.py says so)."""

import socket
import ssl

from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from config import Settings
from config.settings import TlsSettings
from node import notices
from node.watching import certificates
from scp.callers.own import own_title
from scp.network.tls import CannotSecure, own_client_context
from sr_writer.bounded_socket import Limits


def receive_address(settings: Settings) -> tuple[str, int]:
    """Where the receiver of this machine answers: as configured, or as it said when the system chose the port."""
    host, port = settings.receive.host, settings.receive.port
    if port == 0:
        port = int(notices.read(settings, "receive").get("port", 0))
    if host in ("0.0.0.0", "::", ""):  # noqa: S104  compared, not bound
        host = "127.0.0.1" if host != "::" else "::1"
    return host, port


def own_echo(settings: Settings, timeout_s: float = 5.0) -> bool:
    """Whether the receiver answered a C-ECHO with Success, or turned away a certificate that cannot be let in."""
    host, port = receive_address(settings)
    if port == 0:
        return False
    tls = settings.receive.tls
    if tls.enabled and tls.mutual and not _may_come_in(tls):
        return _turns_away(host, port, timeout_s)
    ae = AE(ae_title=own_title(settings))
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = timeout_s
    ae.add_requested_context(Verification)
    secured = (own_client_context(tls), host) if tls.enabled else None
    limits: list[evt.EventHandlerType] = [(evt.EVT_CONN_OPEN, Limits("this node", timeout_s, timeout_s).take)]
    assoc = ae.associate(host, port, ae_title=settings.receive.ae_title, tls_args=secured, evt_handlers=limits)
    if not assoc.is_established:
        return False
    try:
        return bool(assoc.send_c_echo().get("Status", -1) == 0)
    finally:
        assoc.release()


def _may_come_in(tls: TlsSettings) -> bool:
    try:
        return not certificates.own_refused(tls)
    except CannotSecure:  # the files changed into something that no receiver takes up
        return False


def _turns_away(host: str, port: int, timeout_s: float) -> bool:
    """Whether somebody there speaks TLS and asks for another certificate than none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection((host, port), timeout_s) as raw, context.wrap_socket(raw) as secured:
            secured.recv(1)
    except ssl.SSLError as error:
        return "ALERT" in str(error.reason)
    except OSError:
        return False
    return False
