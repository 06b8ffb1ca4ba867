"""Programs other people wrote, used as peers. pynetdicom installs commands of the same names: call the system's."""

import socket
from pathlib import Path

import pytest

FOLDERS = (Path("/usr/bin"), Path("/usr/sbin"), Path("/usr/local/bin"))
PACKAGES = {
    "storescu": "dcmtk",
    "storescp": "dcmtk",
    "echoscu": "dcmtk",
    "dcmdump": "dcmtk",
    "dcmsend": "dcmtk",
    "dcmqrscp": "dcmtk",
    "dsrdump": "dcmtk",
    "dsr2html": "dcmtk",
    "java": "default-jdk-headless",
    "javac": "default-jdk-headless",
    "dciodvfy": "dicom3tools",
    "Orthanc": "orthanc",
}


def need(name: str) -> Path:
    """The system's own `name`; skips the test, saying how to install it, when it is not there."""
    for folder in FOLDERS:
        if (folder / name).is_file():
            return folder / name
    package = PACKAGES.get(name, name)
    pytest.skip(f"{name} is not installed (Debian package {package}): run `make peers`")


def free_port() -> int:
    """A TCP port that was free on loopback a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
