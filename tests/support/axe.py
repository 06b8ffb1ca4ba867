"""axe-core, the accessibility checker, as its makers published it: pinned, in a cache outside the tree."""

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from tests.support.ohif import cache

VERSION = "4.14.1"
SHA512 = "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
PACKAGE = f"axe-core@{VERSION}"


def script() -> Path | None:
    """axe.min.js; fetched the first time, with npm. None where there is no npm or no registry.

    Raises AssertionError when what came is not what was pinned.
    """
    file = cache() / f"axe-core-{VERSION}.min.js"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent) as scratch:
            package = _fetch(Path(scratch))
            if package is None:
                return None
            found = base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
            assert found == SHA512, f"{PACKAGE} is not what was pinned: its sha512 is {found}"
            with tarfile.open(package) as archive:
                archive.extract("package/axe.min.js", scratch, filter="data")
            (Path(scratch) / "package" / "axe.min.js").replace(file)
    return file


def _fetch(folder: Path) -> Path | None:
    npm = shutil.which("npm")
    if npm is None:
        return None
    command = [npm, "pack", PACKAGE, "--pack-destination", str(folder), "--loglevel", "error", "--fetch-retries", "0"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return None
    return next(iter(folder.glob("*.tgz")), None) if done.returncode == 0 else None
