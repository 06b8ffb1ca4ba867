"""A signed JSON document by POST. It never names a patient; whether it names the study is a setting.

Signature: `OpenTriage-Signature: t=<unix seconds>,v1=<hex>` with HMAC-SHA256 of "<t>." and the body under the shared
secret. The receiver compares in constant time and refuses an old t, so that nothing can be replayed to it.
"""

import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

from config.adapters import WebhookAdapter
from config.settings import DeliverSettings
from ledger.records import Finding
from ledger.slices import as_objects
from sr_writer import codes
from sr_writer.adapters.http import post, refusal
from sr_writer.adapters.telling import WITHDRAWN, Answer, Message, accepted, refused, secret
from sr_writer.errors import Unreachable
from sr_writer.identity import software_version

SCHEMA = "opentriage.notice/1"
SIGNATURE, DELIVERY = "OpenTriage-Signature", "OpenTriage-Delivery"
SECRET_MIN_BYTES = 16


class WebhookTeller:
    """One POST for each report."""

    def __init__(self, settings: WebhookAdapter, times: DeliverSettings, now: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._times = times
        self._now = now

    def tell(self, message: Message) -> Answer:
        """2xx accepts, 5xx is tried again, everything else refuses. Raises Unreachable, TryLater."""
        body = json.dumps(document(message, self._settings), separators=(",", ":"), sort_keys=True).encode()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"OpenTriage/{software_version()}",
            DELIVERY: message.uid,
            SIGNATURE: signature(self._secret(), int(self._now()), body),
        }
        one = self._settings
        status = post(one.url, body, headers, one.ca_file, self._times.response_timeout_s, one.key)
        if 200 <= status < 300:
            return accepted(f"{one.key} accepted it (HTTP {status}).")
        return refused(refusal(one.key, status, "the report"))

    def _secret(self) -> bytes:
        try:
            found = secret(self._settings.secret_file)
        except OSError as error:
            raise Unreachable(f"secret_file of {self._settings.key} cannot be read ({type(error).__name__}).") from None
        if len(found) < SECRET_MIN_BYTES:
            raise Unreachable(f"secret_file of {self._settings.key} holds fewer than {SECRET_MIN_BYTES} bytes.")
        return found


def signature(key: bytes, at: int, body: bytes) -> str:
    return f"t={at},v1={hmac.new(key, f'{at}.'.encode() + body, hashlib.sha256).hexdigest()}"


def document(message: Message, settings: WebhookAdapter) -> dict[str, Any]:
    """What is told, ready for JSON."""
    notice, withdrawn = message.notice, message.status == WITHDRAWN
    said: dict[str, Any] = {
        "schema": SCHEMA,
        "id": message.uid,
        "report": notice.report_kind.value,
        "priority": None if withdrawn else message.status,
        "made_at": notice.made_at.isoformat(),
        "findings": [] if withdrawn else [_finding(one) for one in message.findings],
        "slices_marked": [] if withdrawn else as_objects(notice.slices_marked, "label"),
        "slices_refused": [] if withdrawn else as_objects(notice.slices_refused, "reason"),
        "critical_flags": [] if withdrawn else list(notice.critical_flags),
        "research_use_only": True,
    }
    if settings.study_instance_uid:
        said["study_instance_uid"] = notice.study_instance_uid
    if settings.accession_number:
        said["accession_number"] = message.text("AccessionNumber")
    return said


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "label": finding.label,
        "code": {"value": finding.code.value, "scheme": finding.code.scheme, "meaning": finding.code.meaning},
        "presence": codes.presence(finding.present, finding.in_doubt).meaning,
        "probability": round(finding.probability, 4),
        "probability_sd": round(finding.probability_sd, 4),
    }
