"""A stand-in PACS for the demonstration: takes everything by C-STORE, writes it down, notes when it came."""

import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE, AllStoragePresentationContexts, evt

AE_TITLE = "DEMOPACS"


@dataclass(frozen=True)
class Arrival:
    """One object that came in."""

    study_instance_uid: str
    modality: str
    path: Path
    at: datetime


class StandInPacs:
    """Listens on a free loopback port from `start` to `stop`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._arrivals: list[Arrival] = []
        self._server: Any = None
        folder.mkdir(parents=True, exist_ok=True)

    def start(self) -> int:
        """Start to listen; the port."""
        ae = AE(ae_title=AE_TITLE)
        ae.supported_contexts = AllStoragePresentationContexts
        self._server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)])
        return int(self._server.server_address[1])

    def stop(self) -> None:
        """Stop listening; the files stay."""
        self._server.shutdown()
        self._server.server_close()

    @property
    def arrivals(self) -> list[Arrival]:
        """What came so far, in order."""
        with self._lock:
            return list(self._arrivals)

    def _store(self, event: Any) -> int:
        at = datetime.now(UTC)
        path = self._folder / f"{event.request.AffectedSOPInstanceUID}.dcm"
        path.write_bytes(event.encoded_dataset())
        ds: Dataset = dcmread(path, stop_before_pixels=True, specific_tags=["StudyInstanceUID", "Modality"])
        with self._lock:
            self._arrivals.append(Arrival(str(ds.StudyInstanceUID), str(ds.Modality), path, at))
        return 0x0000
