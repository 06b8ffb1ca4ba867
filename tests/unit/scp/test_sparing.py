"""No scan fills the disk with log lines, and nobody new is missed for long."""

import pytest
from structlog.testing import capture_logs

from scp.network.sparing import EVERY_S, KEPT_MAX, SparingLog


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_peer_and_reason_get_one_line_a_minute_and_the_next_says_what_was_left_out(clock: Clock) -> None:
    said = SparingLog("cut", clock)
    with capture_logs() as logs:
        for _ in range(10):
            said.warn("10.0.0.1", "idle")
        said.warn("10.0.0.1", "pdu_length")
        said.warn("10.0.0.2", "idle", hint="it speaks TLS")
        clock.now += EVERY_S
        said.warn("10.0.0.1", "idle")
    assert [(line["peer"], line["reason"], line.get("unsaid", 0)) for line in logs] == [
        ("10.0.0.1", "idle", 0),
        ("10.0.0.1", "pdu_length", 0),
        ("10.0.0.2", "idle", 0),
        ("10.0.0.1", "idle", 9),
    ]
    assert logs[2]["hint"] == "it speaks TLS"


def test_a_scan_from_everywhere_gets_no_more_lines_than_are_kept(clock: Clock) -> None:
    said = SparingLog("cut", clock)
    with capture_logs() as logs:
        for n in range(10 * KEPT_MAX):
            said.warn(f"2001:db8::{n:x}", "idle")
        assert len(logs) == len(said._said) == KEPT_MAX
        clock.now += EVERY_S
        said.warn("10.0.0.1", "idle")
    assert logs[-1]["peer"] == "10.0.0.1"
