"""A PACS that is down or dumb gets everything later, and nobody else waits for it."""

import socket
from pathlib import Path
from typing import Any

from tests.support.chests import bright, save
from tests.support.peers import free_port
from tests.support.running import StoreScp, storescu
from tests.support.waiting import wait_until


def test_a_dead_and_a_dumb_destination_delay_nobody_and_get_everything_later(start_node: Any, tmp_path: Path) -> None:
    first, second, dead_port = bright(), bright(), free_port()
    dumb = socket.create_server(("127.0.0.1", 0))  # accepts a connection and never says a word
    dumb_port = dumb.getsockname()[1]
    with dumb, StoreScp(tmp_path / "pacs") as pacs:
        node = start_node(("DEAD", dead_port), ("DUMB", dumb_port), ("PACS", pacs.port))
        assert storescu(node.port, save(first, tmp_path / "in")).returncode == 0
        wait_until(lambda: len(pacs.files()) >= 4, 60)
        assert storescu(node.port, save(second, tmp_path / "in")).returncode == 0
        wait_until(lambda: len(pacs.files()) == 12, 30)  # of each the provisional report, and the final one's words
        entry = node.entry(first.StudyInstanceUID)
        assert entry is not None
        states, reached = dict(entry.deliveries), f"PACS@127.0.0.1:{pacs.port}"
        assert states[f"DEAD@127.0.0.1:{dead_port}"] == states[f"DUMB@127.0.0.1:{dumb_port}"] == "waiting"
        assert states[reached] == "delivered"
        sent = {path.name for path in pacs.files()}
        wait_until(lambda: all(dict(seen.proofs)[reached] == "unproven" for seen in node.ledger.worklist()), 30)
    with StoreScp(tmp_path / "late", dead_port) as late, StoreScp(tmp_path / "woken", dumb_port) as woken:
        wait_until(lambda: {path.name for path in late.files()} == sent, 60)
        wait_until(lambda: {path.name for path in woken.files()} == sent, 60)
        node.wait_idle(30)
