"""A running receiver on a real socket, with a real store and a real SQLite ledger; without the rest of the node."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config.settings import CommitmentRequestor, NodeSettings, PeerBinding, ReceiveSettings, Settings
from ledger.ledger import Ledger
from ledger.records import InstanceRef
from ledger.store import Store
from scp.receiver import Receiver
from tests.support.ledgers import laid


@dataclass
class Receiving:
    settings: Settings
    store: Store
    ledger: Ledger
    receiver: Receiver

    @property
    def address(self) -> tuple[str, int]:
        return self.receiver.address

    @property
    def dispositions(self) -> dict[str, int]:
        return self.ledger.counts()["instances"]

    def files(self) -> list[Path]:
        return [path for path in (self.store.root / "instances").rglob("*") if path.is_file()]

    def parts(self) -> list[Path]:
        return list((self.store.root / "parts").iterdir())

    def quarantined(self) -> list[Path]:
        return list((self.settings.node.state_dir / "quarantine").iterdir())

    def find(self, sop_instance_uid: str, data: bytes) -> InstanceRef | None:
        """The ledger's row of these data set bytes."""
        return self.ledger.find_instance(sop_instance_uid, hashlib.sha256(data).hexdigest())


StartReceiving = Callable[..., Receiving]


def start_receiving(
    folder: Path,
    store: Store | None = None,
    study: Any = None,
    requestors: Sequence[CommitmentRequestor] = (),
    receivers: int = 1,
    peers: Sequence[PeerBinding] = (),
    **receive: Any,
) -> Receiving:
    """receive: settings of that section; a free port on loopback unless said otherwise. receivers: how many it is told
    that they are."""
    received = {"host": "127.0.0.1", "port": 0, "free_disk_min_bytes": 0, **receive}
    settings = Settings(
        node=NodeSettings(state_dir=folder),
        receive=ReceiveSettings(**received),
        study=study or {},
        commitment_requestors=tuple(requestors),
        peers=tuple(peers),
    )
    store = store or Store(folder / "store")
    ledger = Ledger.open(laid(settings.database_url), store)
    running = Receiving(settings, store, ledger, Receiver(settings, ledger, receivers=receivers))
    running.receiver.start()
    return running
