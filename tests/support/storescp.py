"""DCMTK's storescp as a PACS."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.peers import free_port, need
from tests.support.waiting import listens, wait_until


@contextmanager
def storescp(folder: Path, *options: object) -> Iterator[int]:
    """It listens, and its files come below `folder`, which is made. Its port."""
    folder.mkdir()
    port = free_port()
    command = [need("storescp"), "-aet", "PACS", "-od", folder, *options, port]
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: listens(port), 20)
        yield port
    finally:
        process.kill()
        process.wait(20)
