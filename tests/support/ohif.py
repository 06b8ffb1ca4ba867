"""OHIF as its makers published it: a pinned version of the npm package @ohif/app, in a cache outside the tree."""

import base64
import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

VERSION = "3.13.2"
SHA512 = "WZdxmpmG7rqFgW9ZJLcbgr3XCtLi1KDNPoMaeY5PPe6j4G4fjEjjkycZM6C6Zk2F87BKxFfpq+jd5xXZB9E8EA=="
PACKAGE = f"@ohif/app@{VERSION}"


class NoOhif(Exception):
    """OHIF could not be had; the text says what to do."""


def dist() -> Path:
    """The folder with OHIF's index.html; fetched the first time, with npm, from wherever npm is told to.

    Raises NoOhif when there is no npm, no registry, or what came is not what was pinned.
    """
    folder = cache() / f"ohif-app-{VERSION}"
    if not (folder / "index.html").is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            _unpack(_fetch(Path(scratch)), Path(scratch))
            shutil.rmtree(folder, ignore_errors=True)
            (Path(scratch) / "package" / "dist").replace(folder)
    return folder


def cache() -> Path:
    """What was fetched once for the tests: OPENTRIAGE_CACHE, else a folder in the user's cache."""
    users = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("OPENTRIAGE_CACHE") or users / "opentriage")


def verify(package: Path) -> None:
    """Raises NoOhif when the package is not, byte for byte, the one that was pinned."""
    found = base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
    if found != SHA512:
        raise NoOhif(f"{PACKAGE} is not what was pinned: its sha512 is {found}")


def _fetch(folder: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise NoOhif("npm is needed once, to fetch OHIF: run `make peers`")
    command = [npm, "pack", PACKAGE, "--pack-destination", str(folder), "--loglevel", "error"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    packages = list(folder.glob("*.tgz"))
    if done.returncode or len(packages) != 1:
        raise NoOhif(f"npm could not fetch {PACKAGE}: {done.stderr.strip()}")
    return packages[0]


def _unpack(package: Path, folder: Path) -> None:
    verify(package)
    with tarfile.open(package) as archive:
        archive.extractall(folder, filter="data")
