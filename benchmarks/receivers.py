"""The receivers that are compared, each a process of its own on loopback with a folder of its own on one disk."""

import json
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from benchmarks.watched import Watched
from config.settings import ReceiveSettings
from tests.support.peers import free_port, need
from tests.support.waiting import wait_until

MANY = 2000  # associations
Command = Callable[[Path, int], list[str]]  # folder, port -> command line


@dataclass(frozen=True)
class Receiver:
    """data: below the receiver's folder, what it has written of the instances and may be deleted between rounds."""

    name: str
    command: Command
    data: str
    ours: bool = False


@dataclass
class Running:
    receiver: Receiver
    watched: Watched
    port: int
    data: Path

    def stored(self) -> int:
        """Files that lie there now."""
        return sum(1 for _ in self._files())

    def clean(self) -> None:
        """Empty what was received and let the disk come to rest. The names stay until the end: for minutes ext4 steps
        over each inode that was deleted whenever it makes a file, which took up to half of everybody's processor time.
        """
        for path in self._files():
            os.truncate(path, 0)
        os.sync()

    def _files(self) -> Iterator[Path]:
        return (path for path in self.data.rglob("*") if path.is_file() and path.stat().st_size)


@contextmanager
def running(receiver: Receiver, folder: Path, env: Mapping[str, str]) -> Iterator[Running]:
    """The receiver, listening."""
    folder.mkdir(parents=True)
    data, port = folder / receiver.data, free_port()
    data.mkdir(parents=True, exist_ok=True)
    with Watched(receiver.command(folder, port), env, folder / "log") as watched:
        wait_until(lambda: _listens(port, watched, folder / "log"), 60, 0.05)
        yield Running(receiver, watched, port, data)


def _listens(port: int, watched: Watched, log: Path) -> bool:
    if watched.process.poll() is not None:
        raise RuntimeError(f"the receiver ended with {watched.process.returncode}: {log.read_text()[-2000:]}")
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _storescp(*more: str) -> Command:
    return lambda folder, port: [str(need("storescp")), "--fork", *more, "-od", str(folder / "data"), str(port)]


def _orthanc(folder: Path, port: int) -> list[str]:
    config = {
        "StorageDirectory": str(folder / "data"),
        "IndexDirectory": str(folder / "index"),
        "DicomAet": "OPENTRIAGE",
        "DicomPort": port,
        "HttpServerEnabled": False,
        "Plugins": [],
    }
    (folder / "orthanc.json").write_text(json.dumps(config), encoding="utf-8")
    return [str(need("Orthanc")), str(folder / "orthanc.json")]


def _stock(folder: Path, port: int) -> list[str]:
    return [sys.executable, "-m", "benchmarks.stock_pynetdicom", str(port), str(folder / "data")]


def _ours(engine: str, processes: int = 1) -> Command:
    def command(folder: Path, port: int) -> list[str]:
        lines = ["[node]", f"state_dir = {json.dumps(str(folder))}", "[receive]", f'engine = "{engine}"']
        lines += ['host = "127.0.0.1"', f"port = {port}", f"max_associations = {MANY}"]
        lines.append(f"processes = {processes}")
        (folder / "opentriage.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
        if processes > 1:
            return [sys.executable, "-m", "benchmarks.several_receivers", str(folder / "opentriage.toml")]
        serve = ["-m", "node.cli", "serve", "--role", "receive", "--config", str(folder / "opentriage.toml")]
        return [sys.executable, *serve]

    return command


def receivers() -> dict[str, Receiver]:
    """All that this version can run, by the name that the command line knows."""
    found = {
        "storescp": Receiver("storescp --fork", _storescp(), "data"),
        "storescp-tuned": Receiver("storescp --fork +B -pdu 131072", _storescp("+B", "-pdu", "131072"), "data"),
        "orthanc": Receiver("Orthanc", _orthanc, "data"),
        "stock": Receiver("stock pynetdicom", _stock, "data"),
    }
    for engine in sorted(get_args(ReceiveSettings.model_fields["engine"].annotation)):
        found[engine] = Receiver(f"OpenTriage, {engine}", _ours(engine), "store/instances", ours=True)
        name = f"OpenTriage, {engine}, 2 processes"
        found[f"{engine}-2"] = Receiver(name, _ours(engine, 2), "store/instances", ours=True)
    return found
