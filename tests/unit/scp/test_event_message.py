"""An event report is taken whole up to its limit, however it is cut, and no further."""

import pytest

from scp.network.engine import EVENT_MAX_BYTES
from scp.network.pynetdicom_parts import KeptMessage


def test_an_event_report_may_fill_its_limit_and_not_pass_it() -> None:
    event = KeptMessage(1, {}, is_action=False)
    event.write(memoryview(bytes(EVENT_MAX_BYTES - 2)))
    event.write(memoryview(b"ab"))
    assert len(event.data) == EVENT_MAX_BYTES
    with pytest.raises(ValueError, match="too long"):
        event.write(memoryview(b"c"))
