"""A PACS that is down or dumb gets everything later, and nobody else waits for it."""

import socket
from pathlib import Path
from typing import Any

import pytest

from tests.support.chests import bright, save
from tests.support.peers import free_port
from tests.support.running import StoreScp, storescu
from tests.support.waiting import wait_until


@pytest.mark.timeout(600)
def test_a_dead_and_a_dumb_destination_delay_nobody_and_get_everything_later(start_node: Any, tmp_path: Path) -> None:
    first, second, dead_port = bright(), bright(), free_port()
    dumb = socket.create_server(("127.0.0.1", 0))  # accepts a connection and never says a word
    dumb_port = dumb.getsockname()[1]
    with dumb, StoreScp(tmp_path / "pacs") as pacs:
        node = start_node(("DEAD", dead_port), ("DUMB", dumb_port), ("PACS", pacs.port))
        assert storescu(node.port, save(first, tmp_path / "in")).returncode == 0
        wait_until(lambda: len(pacs.files()) >= 4, 120)
        assert storescu(node.port, save(second, tmp_path / "in")).returncode == 0
        wait_until(lambda: len(pacs.files()) == 12, 120)  # of each the provisional report, and the final one's words
        reached = f"PACS@127.0.0.1:{pacs.port}"

        def delivered() -> dict[str, str]:
            """Of the first study; a file is there before the node has heard that it is."""
            entry = node.entry(first.StudyInstanceUID)
            assert entry is not None
            states = dict(entry.deliveries)
            return states if states[reached] == "delivered" else {}

        states = wait_until(delivered, 120)
        assert states[f"DEAD@127.0.0.1:{dead_port}"] == states[f"DUMB@127.0.0.1:{dumb_port}"] == "waiting"
        sent = {path.name for path in pacs.files()}
        wait_until(lambda: all(dict(seen.proofs)[reached] == "unproven" for seen in node.ledger.worklist()), 120)
    with StoreScp(tmp_path / "late", dead_port) as late, StoreScp(tmp_path / "woken", dumb_port) as woken:
        wait_until(lambda: {path.name for path in late.files()} == sent, 120)
        wait_until(lambda: {path.name for path in woken.files()} == sent, 120)
        node.wait_idle(150)
