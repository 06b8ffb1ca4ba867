"""The status table, row by row, and that it is the only one."""

import pytest

from ledger.errors import LedgerUnavailable
from scp import errors
from scp.network import command_set
from scp.status import STATUS_OF, Answer, answer_to


@pytest.mark.parametrize(
    ("error", "status", "offending"),
    [
        (errors.StoreUnavailable("storage is nearly full"), 0xA700, None),
        (errors.InstanceTooLarge("data set is longer than the limit"), 0xA700, None),
        (errors.DataSetMismatch("not the instance", 0x00080018), 0xA900, 0x00080018),
        (errors.StructureError("value runs past the end", 0x7FE00010), 0xC000, 0x7FE00010),
        (errors.StructureError("deflate stream is broken"), 0xC000, None),
        (errors.InvalidUid("UID is not valid", 0x0020000D), 0x0117, 0x0020000D),
        (errors.ClassNotAccepted("not of this context"), 0x0122, None),
    ],
)
def test_each_error_has_its_status(error: errors.ReceiveError, status: int, offending: int | None) -> None:
    answer = answer_to(error)
    assert (answer.status, answer.offending_element) == (status, offending)
    assert answer.comment
    assert not answer.is_success


def test_an_unforeseen_error_is_0110_only_if_nothing_was_stored() -> None:
    assert answer_to(RuntimeError("Doe^Jane")) == Answer(0x0110, "internal error, nothing was stored")
    assert answer_to(RuntimeError("Doe^Jane"), stored=True).status == 0xA700


def test_no_error_is_forgotten_and_no_warning_is_sent() -> None:
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.ReceiveError)}
    assert set(STATUS_OF) == kinds - {errors.ReceiveError}
    assert not {status for status in STATUS_OF.values() if status >> 12 == 0xB}
    assert LedgerUnavailable not in STATUS_OF  # admission turns it into StoreUnavailable


def test_a_comment_fits_its_element() -> None:
    assert len(answer_to(errors.StoreUnavailable("x" * 200)).comment) == 64


def test_a_response_echoes_the_request_and_carries_the_answer() -> None:
    request = {0x0002: b"1.2.840\0", 0x0110: b"\7\0", 0x1000: b"1.2.3.4\0", 0x0700: b"\0\0"}
    encoded = command_set.store_response(request, Answer(0xC000, "cut off", 0x7FE00010))
    elements = command_set.decode(encoded)
    assert int.from_bytes(elements[0x0000], "little") == len(encoded) - 12
    assert command_set.number(elements, command_set.COMMAND_FIELD) == 0x8001
    assert command_set.number(elements, command_set.MESSAGE_ID_RESPONDED_TO) == 7
    assert command_set.number(elements, command_set.DATA_SET_TYPE) == 0x0101
    assert command_set.number(elements, command_set.STATUS) == 0xC000
    assert elements[command_set.OFFENDING_ELEMENT] == b"\xe0\x7f\x10\0"
    assert elements[command_set.ERROR_COMMENT] == b"cut off "
    assert elements[0x0002] == b"1.2.840\0"
    assert elements[0x1000] == b"1.2.3.4\0"
    assert list(elements) == sorted(elements)


@pytest.mark.parametrize("broken", [b"\0", bytes(7), b"\0\0\0\0\5\0\0\0abc", b"\2\0\0\0\0\0\0\0"])
def test_a_broken_command_set_is_a_value_error(broken: bytes) -> None:
    with pytest.raises(ValueError, match="command set"):
        command_set.decode(broken)
