"""What a command set asks for, in the words of the seam (scp/network/engine.py). Shared by the engines."""

from scp.network import command_set
from scp.network.command_set import (
    ACTION_TYPE_ID,
    AFFECTED_SOP_CLASS_UID,
    AFFECTED_SOP_INSTANCE_UID,
    EVENT_TYPE_ID,
    PRIORITY,
)
from scp.network.engine import ActionRequest, AssociationFacts, EventReport, StoreRequest
from scp.network.negotiation import AcceptedContext
from scp.uids import is_valid_uid

Command = dict[int, bytes]


def store_request(facts: AssociationFacts, context: AcceptedContext, command: Command) -> StoreRequest:
    return StoreRequest(
        association=facts,
        abstract_syntax_uid=context.abstract_syntax_uid,
        transfer_syntax_uid=context.transfer_syntax_uid,
        sop_class_uid=command_set.uid(command, AFFECTED_SOP_CLASS_UID),
        sop_instance_uid=command_set.uid(command, AFFECTED_SOP_INSTANCE_UID),
        message_priority=command_set.number(command, PRIORITY, default=0),
    )


def endless(command: Command, size_bytes: int) -> dict[str, str | int]:
    """For the log, of a data set that was cut off after so many bytes."""
    uid = command_set.uid(command, AFFECTED_SOP_INSTANCE_UID)
    return {
        "sop_instance_uid": uid if is_valid_uid(uid) else "",
        "size_bytes": size_bytes,
        "setting": "receive.max_instance_bytes",
    }


def event_report(facts: AssociationFacts, context: AcceptedContext, command: Command, data: bytes) -> EventReport:
    return EventReport(
        association=facts,
        transfer_syntax_uid=context.transfer_syntax_uid,
        sop_class_uid=command_set.uid(command, AFFECTED_SOP_CLASS_UID),
        event_type=command_set.number(command, EVENT_TYPE_ID, default=0),
        data=data,
    )


def action_request(facts: AssociationFacts, context: AcceptedContext, command: Command, data: bytes) -> ActionRequest:
    return ActionRequest(
        association=facts,
        transfer_syntax_uid=context.transfer_syntax_uid,
        sop_class_uid=command_set.uid(command, command_set.REQUESTED_SOP_CLASS_UID),
        sop_instance_uid=command_set.uid(command, command_set.REQUESTED_SOP_INSTANCE_UID),
        action_type=command_set.number(command, ACTION_TYPE_ID, default=0),
        data=data,
    )
