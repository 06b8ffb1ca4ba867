"""One HTTP request of an adapter, and what its answer means."""

import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path

from sr_writer.adapters.telling import TryLater
from sr_writer.errors import Unreachable
from sr_writer.http_opener import opener

_BODY_MAX_BYTES = 65_536
_LATER = frozenset({408, 425, 429})


def post(url: str, body: bytes, headers: Mapping[str, str], ca_file: Path, timeout_s: float, name: str) -> int:
    """The status of the answer. Raises Unreachable when there is no connection, TryLater when it has to be told again:
    5xx, 408, 425, 429, no answer."""
    asked = urllib.request.Request(url, data=body, headers=dict(headers), method="POST")  # noqa: S310  http(s): settings
    try:
        with opener(ca_file if ca_file.name else None).open(asked, timeout=timeout_s) as answer:
            answer.read(_BODY_MAX_BYTES)
            status = int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            status = error.code
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise Unreachable(f"the certificate of {name} is not trusted: set ca_file or renew it.") from None
        raise Unreachable(f"{name} cannot be reached ({type(error.reason).__name__}).") from None
    except (OSError, HTTPException, ValueError) as error:
        raise TryLater(f"{name} broke off before it answered, or took too long ({type(error).__name__}).") from None
    if status >= 500 or status in _LATER:
        raise TryLater(f"{name} cannot take it now (HTTP {status}).")
    return status


def refusal(name: str, status: int, what: str) -> str:
    """A sentence on an answer that will not change by itself."""
    if 300 <= status < 400:
        return f"{name} redirects (HTTP {status}), which is not followed: put the final address in the settings."
    if status in (401, 403):
        return f"{name} does not let us in (HTTP {status}): check the credentials, then release the job."
    return f"{name} refused {what} (HTTP {status}): look at its log, then release the job."
