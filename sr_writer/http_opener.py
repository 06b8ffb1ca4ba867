"""How anything here talks HTTP: no redirects, no proxy of the environment, TLS as everywhere, certificates checked."""

import urllib.request
from http.client import HTTPMessage
from pathlib import Path
from typing import IO

from sr_writer.secure import NONE, named_context


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """What is asked or told is for the address in the settings, and for nobody it points to."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        return None


def opener(ca_file: Path | None = None) -> urllib.request.OpenerDirector:
    """ca_file: whose certificates are trusted; None for the system's. Raises OSError where it cannot be read."""
    secured = urllib.request.HTTPSHandler(context=named_context(ca_file or NONE))
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), secured, _NoRedirect())
