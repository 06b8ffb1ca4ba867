"""Receivers of the adapters: an MLLP server of the `hl7` library, a UPS-RS service that checks as the standard says, a
webhook. Each can be told what to answer next, and each keeps what it was told."""

import asyncio
import hashlib
import hmac
import json
import re
import threading
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import hl7
from hl7.mllp import start_hl7_server
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from tests.support.peers import free_port

AFTER_BODY = "after the body"  # an answer: hang up once the message was read


class Ris:
    """An MLLP receiver. `answers`: acknowledgement codes, or AFTER_BODY; AA when there are none left."""

    def __init__(self, port: int = 0) -> None:
        self.port = port or free_port()
        self.heard: list[hl7.Message] = []
        self.raw: list[str] = []
        self.answers: deque[str] = deque()
        self.error = ""  # ERR-3 of what is not AA
        self._loop = asyncio.new_event_loop()
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Ris":
        self._thread.start()
        assert self._up.wait(20)
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        start = start_hl7_server(self._serve, "127.0.0.1", self.port, encoding="utf-8")
        server = self._loop.run_until_complete(start)
        self._up.set()
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:  # first: from Python 3.12 on, `wait_closed` waits for the connections that they hold
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.run_until_complete(server.wait_closed())
        self._loop.close()

    async def _serve(self, reader: Any, writer: Any) -> None:
        try:
            while not writer.is_closing():
                message = await reader.readmessage()
                self.raw.append(str(message))
                self.heard.append(message)
                answer = self.answers.popleft() if self.answers else "AA"
                if answer == AFTER_BODY:
                    break
                other = _ack(message, "AA")  # to somebody else's message: to be passed over
                other["MSA"][0][2] = "NOT-YOURS"
                writer.writemessage(other)
                ack = _ack(message, answer)
                if answer != "AA" and self.error:
                    words = "said by the receiver of SENTINELNAME"
                    ack = hl7.parse(f"{str(ack).rstrip(chr(13))}\rERR|||{self.error}^{words}^HL70357\r")
                writer.writemessage(ack)
                await writer.drain()
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


def _ack(message: hl7.Message, code: str) -> hl7.Message:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # how the library asks for the time
        return message.create_ack(code)


@dataclass
class Asked:
    """One HTTP request."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Http:
    """A server on loopback. `answers`: statuses to answer next instead of what `reply` says; 0 hangs up."""

    port: int = field(default_factory=free_port)
    asked: list[Asked] = field(default_factory=list)
    answers: deque[int] = field(default_factory=deque)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/in"

    def reply(self, asked: Asked) -> int:
        """The status of an answer."""
        return 202

    @contextmanager
    def up(self) -> Iterator["Http"]:
        """Serving, until the end of the block."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                asked = Asked(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
                outer.asked.append(asked)
                status = outer.answers.popleft() if outer.answers else outer.reply(asked)
                if status:
                    self.send_response(status)
                    if 300 <= status < 400:
                        self.send_header("Location", f"http://127.0.0.1:{outer.port}/elsewhere")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                self.close_connection = True

            do_GET = do_POST

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the library's name
                """Quiet."""

        server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join(20)


def is_signed(asked: Asked, secret: bytes) -> bool:
    """As a receiver would check it."""
    found = re.fullmatch(r"t=(\d+),v1=([0-9a-f]{64})", asked.headers.get("opentriage-signature", ""))
    if found is None:
        return False
    wanted = hmac.new(secret, found[1].encode() + b"." + asked.body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(wanted, found[2])


ONE_ONE = (  # PS3.4 Table CC.2.5-3, N-CREATE: required with a value
    "ScheduledProcedureStepPriority", "ProcedureStepLabel", "WorklistLabel", "ScheduledProcedureStepStartDateTime",
    "InputReadinessState", "ProcedureStepState",
)  # fmt: skip
TWO_TWO = (  # required, may be empty
    "TransactionUID", "ScheduledProcessingParametersSequence", "ScheduledStationNameCodeSequence",
    "ScheduledStationClassCodeSequence", "ScheduledStationGeographicLocationCodeSequence",
    "ScheduledWorkitemCodeSequence", "CommentsOnTheScheduledProcedureStep", "InputInformationSequence", "PatientName",
    "PatientID", "PatientBirthDate", "PatientSex", "AdmissionID", "IssuerOfAdmissionIDSequence",
    "AdmittingDiagnosesDescription", "AdmittingDiagnosesCodeSequence", "ReferencedRequestSequence",
    "ProcedureStepProgressInformationSequence", "UnifiedProcedureStepPerformedProcedureSequence",
)  # fmt: skip
EMPTY = ("TransactionUID", "ProcedureStepProgressInformationSequence", "UnifiedProcedureStepPerformedProcedureSequence")


@dataclass
class UpsService(Http):
    """Create, update, request cancellation (PS3.18 11.4, 11.6, 11.8). `faults`: what it found wrong with a request."""

    workitems: dict[str, Dataset] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def reply(self, asked: Asked) -> int:
        """As the standard says for the state that the workitem is in."""
        if asked.headers.get("content-type") != "application/dicom+json":
            return self._fault("content type", 415)
        sent = asked.json
        if not isinstance(sent, list) or len(sent) != 1:
            return self._fault("not one data set", 400)
        content = Dataset.from_json(sent[0])
        where = urlsplit(asked.path)
        if where.path == "/in/workitems":
            return self._create(where.query, content)
        found = re.fullmatch(r"/in/workitems/([0-9.]+)(/cancelrequest)?", where.path)
        if not found or found[1] not in self.workitems:
            return 404
        return self._cancel(found[1]) if found[2] else self._update(found[1], content)

    def _fault(self, text: str, status: int) -> int:
        self.faults.append(text)
        return status

    def _create(self, uid: str, content: Dataset) -> int:
        if uid in self.workitems:
            return 409
        wrong = [word for word in (*ONE_ONE, *TWO_TWO) if Tag(word) not in content]
        wrong += [word for word in ONE_ONE if word in content and not content[word].value]
        wrong += [word for word in EMPTY if content.get(word)]
        if wrong or content.ProcedureStepState != "SCHEDULED" or not re.fullmatch(r"[0-9.]{1,64}", uid):
            return self._fault(", ".join(wrong) or "state or UID", 400)
        self.workitems[uid] = content
        return 201

    def _update(self, uid: str, content: Dataset) -> int:
        found = self.workitems[uid]
        if found.ProcedureStepState != "SCHEDULED":
            return 409  # in progress: the transaction UID is missing; else: it is final
        if {"ProcedureStepState", "SOPInstanceUID", "TransactionUID"} & set(content.dir()):
            return self._fault("an update may not hold these", 400)
        found.update(content)
        return 200

    def _cancel(self, uid: str) -> int:
        if self.workitems[uid].ProcedureStepState != "SCHEDULED":
            return 409
        self.workitems[uid].ProcedureStepState = "CANCELED"
        return 202
