"""Two nodes never share a state folder, and the second says what it waits for."""

import os
import threading
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from config.settings import NodeSettings, Settings
from node.lock import NotAlone, alone


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(node=NodeSettings(state_dir=tmp_path))


def test_the_second_node_says_at_once_what_it_waits_for_and_for_how_long(settings: Settings) -> None:
    first = alone(settings, 0.0, threading.Event())
    with capture_logs() as logs, pytest.raises(NotAlone, match="another node is running"):
        alone(settings, 0.3, threading.Event())
    (said,) = logs
    assert said["event"] == "node_waiting"
    assert said["reason"] == f"another node holds {settings.node.state_dir}: waiting up to 0.3 s for it to end"
    os.close(first)
    os.close(alone(settings, 0.0, threading.Event()))


def test_who_is_told_to_stop_waits_no_longer(settings: Settings) -> None:
    first = alone(settings, 0.0, threading.Event())
    stop = threading.Event()
    stop.set()
    with pytest.raises(NotAlone):
        alone(settings, 3600.0, stop)
    os.close(first)
