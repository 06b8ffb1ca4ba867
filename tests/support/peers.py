"""Programs other people wrote, used as peers. pynetdicom installs commands of the same names: call the system's."""

import random
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import pytest

INSTALLED = Path(__file__).parents[2] / ".peers"  # `make peers` leaves it
FOLDERS = (Path("/usr/bin"), Path("/usr/sbin"), Path("/usr/local/bin"))
FIRST_PORT = 15_000  # of those that free_port tries
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
    "promtool": "prometheus",
}


def absent(what: str, package: str) -> NoReturn:
    """Skip the test and say how to install what it needs; where `make peers` has run, nothing may be missing: fail."""
    missing = f"{what} is not installed (Debian package {package})"
    if INSTALLED.exists():
        pytest.fail(f"{missing}, though `make peers` ran here: run it again")
    pytest.skip(f"{missing}: run `make peers`")


def need(name: str) -> Path:
    """The system's own `name`; ends the test, as `absent` does, when it is not there."""
    for folder in FOLDERS:
        if (folder / name).is_file():
            return folder / name
    absent(name, PACKAGES.get(name, name))


def free_port() -> int:
    """A TCP port that was free on loopback a moment ago.

    Not one that the kernel gives to whoever connects, where there is room beside those: a test that connects a hundred
    times before it listens would find it taken, and who connects to it meanwhile may reach himself.
    """
    try:
        given_away = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        given_away = 0
    beside = range(FIRST_PORT, given_away)
    tried = random.SystemRandom().sample(beside, 50) if len(beside) > 5_000 else []
    for port in [*tried, 0]:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise OSError("no port is free on loopback")


def end(process: subprocess.Popen[bytes], within_s: float = 60.0) -> int:
    """SIGTERM, then SIGKILL to what does not end in time; the exit status."""
    process.terminate()
    try:
        return process.wait(within_s)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
