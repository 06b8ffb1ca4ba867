"""Orthanc as the PACS: what arrived is found again over its REST API."""

import json
import subprocess
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx

from tests.support.peers import absent, end, free_port, need
from tests.support.waiting import wait_until

AE_TITLE = "ORTHANC"
PLUGINS = "/usr/share/orthanc/plugins"


class Orthanc:
    """A fresh Orthanc in a folder of its own."""

    def __init__(self, folder: Path, plugins: Sequence[str] = (), modalities: Sequence[tuple[str, int]] = ()) -> None:
        """plugins: names of Debian's, such as "DicomWeb". modalities: (AE title, port on loopback) of those it knows,
        which may query it and to which it answers requests for storage commitment."""
        folder.mkdir(parents=True)
        self.port, self.http_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.http_port}"
        self._program = need("Orthanc")
        libraries = [f"{PLUGINS}/libOrthanc{name}.so" for name in plugins]
        for name, library in zip(plugins, libraries, strict=True):
            if not Path(library).is_file():
                absent(f"Orthanc's plugin {name}", f"orthanc-{name.lower()}")
        self._config = folder / "orthanc.json"
        self._log = folder / "orthanc.log"
        self._config.write_text(
            json.dumps(
                {
                    "Name": "pacs",
                    "StorageDirectory": str(folder / "db"),
                    "IndexDirectory": str(folder / "db"),
                    "DicomAet": AE_TITLE,
                    "DicomPort": self.port,
                    "HttpPort": self.http_port,
                    "RemoteAccessAllowed": False,
                    "AuthenticationEnabled": False,
                    "DicomModalities": {
                        title: {"AET": title, "Host": "127.0.0.1", "Port": port, "AllowStorageCommitment": True}
                        for title, port in modalities
                    },
                    "Plugins": libraries,
                }
            )
        )
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Orthanc":
        with self._log.open("wb") as log:
            self._process = subprocess.Popen([str(self._program), str(self._config)], stdout=log, stderr=log)
        wait_until(self._answers, 60, 0.1)
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process is not None
        end(self._process)

    def _answers(self) -> bool:
        try:
            return self.get("/system")["DicomAet"] == AE_TITLE
        except httpx.TransportError:
            return False

    def get(self, path: str) -> Any:
        """One GET; parsed JSON."""
        answer = httpx.get(f"http://127.0.0.1:{self.http_port}{path}", timeout=30)
        answer.raise_for_status()
        return answer.json()

    def knows(self, title: str, port: int) -> None:
        """From now on it knows this AE on loopback, answers its queries and its requests for storage commitment."""
        modality = {"AET": title, "Host": "127.0.0.1", "Port": port, "AllowStorageCommitment": True}
        httpx.put(f"{self.url}/modalities/{title}", json=modality, timeout=30).raise_for_status()

    def put(self, file: Path) -> None:
        """Store a DICOM file."""
        httpx.post(f"{self.url}/instances", content=file.read_bytes(), timeout=30).raise_for_status()

    def delete(self, path: str) -> None:
        """Forget a resource, as an administrator would."""
        httpx.delete(f"{self.url}{path}", timeout=30).raise_for_status()

    def find(self, level: str, **query: str) -> list[dict[str, Any]]:
        """Resources of `level` (Study, Series, Instance) that match, expanded."""
        body = {"Level": level, "Expand": True, "Query": query}
        answer = httpx.post(f"http://127.0.0.1:{self.http_port}/tools/find", json=body, timeout=30)
        answer.raise_for_status()
        found: list[dict[str, Any]] = answer.json()
        return found

    def file(self, instance: str) -> BytesIO:
        """One instance, by Orthanc's own name of it, as it is stored."""
        answer = httpx.get(f"{self.url}/instances/{instance}/file", timeout=30)
        answer.raise_for_status()
        return BytesIO(answer.content)
