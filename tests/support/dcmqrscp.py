"""DCMTK's dcmqrscp as the archive: stores and lists, and knows no storage commitment."""

import subprocess
from pathlib import Path

from config.settings import Destination
from tests.support.peers import end, free_port, need
from tests.support.waiting import listens, wait_until

AE_TITLE = "DCMQR"


class QueryArchive:
    """A fresh dcmqrscp in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.store = folder / "store"
        self.store.mkdir(parents=True)
        self.port = free_port()
        self._program = need("dcmqrscp")
        self._config = folder / "dcmqrscp.cfg"
        self._config.write_text(
            f"NetworkTCPPort = {self.port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n"
            "HostTable BEGIN\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
            f"AETable BEGIN\n{AE_TITLE} {self.store} RW (200, 1024mb) ANY\nAETable END\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def destination(self, **changes: object) -> Destination:
        values = {"name": "archive", "ae_title": AE_TITLE, "host": "127.0.0.1", "port": self.port, **changes}
        return Destination.model_validate(values)

    def files(self) -> list[Path]:
        """The objects it holds."""
        return sorted(path for path in self.store.iterdir() if path.name != "index.dat")

    def __enter__(self) -> "QueryArchive":
        self._process = subprocess.Popen(
            [str(self._program), "-c", str(self._config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(lambda: listens(self.port), 20)
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process is not None
        end(self._process)
