"""An own C-ECHO: the proof that the node answers, not merely that it runs."""

from pynetdicom import AE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from config import Settings
from node import notices


def receive_address(settings: Settings) -> tuple[str, int]:
    """Where the receiver of this machine answers: as configured, or as it said when the system chose the port."""
    host, port = settings.receive.host, settings.receive.port
    if port == 0:
        port = int(notices.read(settings, "receive").get("port", 0))
    if host in ("0.0.0.0", "::", ""):  # noqa: S104  compared, not bound
        host = "127.0.0.1" if host != "::" else "::1"
    return host, port


def own_echo(settings: Settings, timeout_s: float = 5.0) -> bool:
    """Whether the receiver answered a C-ECHO with Success."""
    host, port = receive_address(settings)
    if port == 0:
        return False
    allowed = settings.receive.allowed_calling_ae_titles
    ae = AE(ae_title=allowed[0] if allowed else settings.receive.ae_title)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = timeout_s
    ae.add_requested_context(Verification)
    assoc = ae.associate(host, port, ae_title=settings.receive.ae_title)
    if not assoc.is_established:
        return False
    try:
        return bool(assoc.send_c_echo().get("Status", -1) == 0)
    finally:
        assoc.release()
