"""An answer belongs to the question it names, on associations that we open; over real sockets, against peers that
answer too often, or something else."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from structlog.testing import capture_logs

from config.settings import DeliverSettings, Destination
from sr_writer.association import associate
from sr_writer.commitment import PUSH_MODEL, PUSH_MODEL_INSTANCE
from sr_writer.find import STUDY_ROOT_FIND
from tests.support.waiting import wait_until

EXPLICIT, TEXT, ECHO = "1.2.840.10008.1.2.1", "1.2.840.10008.5.1.4.1.1.88.22", "1.2.840.10008.1.1"
FAST = DeliverSettings(connect_timeout_s=5.0, response_timeout_s=5.0)
REFUSED = 0x0110
Say = Callable[..., None]


@contextmanager
def asked(
    distort: Callable[[Say, Any, int], None], settings: DeliverSettings = FAST, **handlers: Any
) -> Iterator[Association]:
    """An association with a peer. distort: how the peer sends a message, given how it would."""
    statuses = iter([0x0000, REFUSED, REFUSED])

    def status(_: evt.Event) -> Any:
        return next(statuses)

    def pair(_: evt.Event) -> Any:
        return next(statuses), None

    def only_status(_: evt.Event) -> Any:
        yield next(statuses), None

    def bend(event: evt.Event) -> None:
        say = event.assoc.dimse.send_msg
        event.assoc.dimse.send_msg = lambda message, context: distort(say, message, context)

    peer = AE(ae_title="PACS")
    for sop_class in (TEXT, STUDY_ROOT_FIND, ECHO):
        peer.add_supported_context(sop_class, EXPLICIT)
    peer.add_supported_context(PUSH_MODEL, EXPLICIT, scu_role=True, scp_role=True)
    served = {"store": status, "echo": status, "find": only_status, "action": pair, "report": pair, **handlers}
    kinds = {"store": "C_STORE", "echo": "C_ECHO", "find": "C_FIND", "action": "N_ACTION", "report": "N_EVENT_REPORT"}
    bound = [(getattr(evt, f"EVT_{kinds[name]}"), handler) for name, handler in served.items()]
    server = peer.start_server(("127.0.0.1", 0), block=False, evt_handlers=[*bound, (evt.EVT_ACCEPTED, bend)])
    to = Destination(ae_title="PACS", host="127.0.0.1", port=server.socket.getsockname()[1])
    contexts = [build_context(sop_class, EXPLICIT) for sop_class in (TEXT, STUDY_ROOT_FIND, ECHO, PUSH_MODEL)]
    heard = [(evt.EVT_N_EVENT_REPORT, lambda _: (0x0000, None))]
    association = associate(to, settings, contexts, heard, [build_role(PUSH_MODEL, scu_role=True, scp_role=True)])
    try:
        yield association
    finally:
        association.release()
        server.shutdown()
        server.server_close()


def _store(association: Association) -> Any:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = EXPLICIT
    data.SOPClassUID, data.SOPInstanceUID = TEXT, "1.2.3"
    return association.send_c_store(data).get("Status")


def _find(association: Association) -> Any:
    identifier = Dataset()
    identifier.QueryRetrieveLevel, identifier.StudyInstanceUID = "STUDY", "1.2.3"
    return [status.get("Status") for status, _ in association.send_c_find(identifier, STUDY_ROOT_FIND)][-1]


def _n(name: str) -> Callable[[Association], Any]:
    def ask(association: Association) -> Any:
        information = Dataset()
        information.TransactionUID = "1.2.3.4"
        status, _ = getattr(association, name)(information, 1, PUSH_MODEL, PUSH_MODEL_INSTANCE)
        return status.get("Status")

    return ask


QUESTIONS = {
    "C-STORE": _store,
    "C-FIND": _find,
    "N-ACTION": _n("send_n_action"),
    "N-EVENT-REPORT": _n("send_n_event_report"),
}


def thrice(say: Say, message: Any, context: int) -> None:
    for _ in range(3 if message.Status == 0x0000 else 1):
        say(message, context)


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
def test_an_answer_given_too_often_is_not_the_next_questions(question: Callable[[Association], Any]) -> None:
    with capture_logs() as logs, asked(thrice) as association:
        answers = [question(association) for _ in range(3)]
    assert answers == [0x0000, REFUSED, REFUSED]
    [said] = [line for line in logs if line["event"] == "answer_not_asked_for"]
    assert said["destination"].startswith("PACS@")
    assert (said["answered"], said["asked"]) == (1, 2)
    assert set(said) == {"event", "log_level", "destination", "kind", "answered", "asked"}


def test_an_answer_to_something_else_is_none() -> None:
    def astray(say: Say, message: Any, context: int) -> None:
        message.MessageIDBeingRespondedTo += 7
        say(message, context)

    with asked(astray, DeliverSettings(connect_timeout_s=5.0, response_timeout_s=3.0)) as association:
        assert association.send_c_echo().get("Status") is None


def test_what_we_answer_meanwhile_changes_nothing_of_what_was_asked() -> None:
    """An archive may commit before it has said that it takes the request; its Message IDs are its own."""

    def report_first(event: evt.Event) -> Any:
        report = N_EVENT_REPORT()
        report.MessageID, report.EventTypeID = 77, 1
        report.AffectedSOPClassUID, report.AffectedSOPInstanceUID = PUSH_MODEL, PUSH_MODEL_INSTANCE
        event.assoc.dimse.send_msg(report, event.context.context_id)
        wait_until(lambda: event.assoc.dimse.msg_queue.qsize(), 60)
        answers.append(event.assoc.dimse.msg_queue.queue[0][1].MessageIDBeingRespondedTo)
        return 0x0000, None

    answers: list[int] = []
    with asked(lambda say, *message: say(*message), action=report_first) as association:
        assert QUESTIONS["N-ACTION"](association) == 0x0000
    assert answers == [77]


def test_after_the_last_number_comes_the_first() -> None:
    with asked(lambda say, *message: say(*message), echo=lambda _: 0x0000) as association:
        association.dimse.get_msg.__self__._asked = 65534  # type: ignore[attr-defined]
        assert [association.send_c_echo().get("Status") for _ in range(3)] == [0x0000] * 3
