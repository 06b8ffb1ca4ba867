"""What the node keeps is its user's alone: folders 0700, files 0600, nothing of it in the machine's shared folders."""

import os
import resource
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from config import Settings
from inference import landlock

UMASK: Final = 0o077
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_DEEP: Final = 2  # what lies deeper is behind a folder that was mended
SCRATCH: Final = "tmp"


def close_to_others() -> None:
    """Whatever this process makes from now on is for its user alone; it leaves no core file, and
    no other process reads its memory."""
    os.umask(UMASK)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform.startswith("linux"):
        landlock.no_memory_image()


def mend(settings: Settings) -> list[str]:
    """Take from others what they may in state_dir; the names of what was looser, below it. Raises OSError."""
    state = settings.node.state_dir
    loose = list(too_open(state))
    for path in loose:
        path.chmod(stat.S_IMODE(path.lstat().st_mode) & ~_OTHERS)
    return [str(path.relative_to(state)) for path in loose]


def too_open(state: Path) -> Iterator[Path]:
    """The folder, and what is in it, as far as others may read or write it. Links are not followed."""
    if state.is_dir():
        yield from (path for path in _within(state, _DEEP) if path.lstat().st_mode & _OTHERS)


def clear_scratch(settings: Settings) -> None:
    """Forget the temporary files of an earlier run."""
    shutil.rmtree(settings.node.state_dir / SCRATCH, ignore_errors=True)


def prepare_scratch(settings: Settings, role: str) -> Path:
    """The folder of one role's temporary files, on the volume that holds everything else."""
    folder = settings.node.state_dir.absolute() / SCRATCH / role
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _within(folder: Path, depth: int) -> Iterator[Path]:
    yield folder
    for entry in os.scandir(folder):
        if entry.is_symlink():
            continue
        if entry.is_dir(follow_symlinks=False) and depth > 1:
            yield from _within(Path(entry.path), depth - 1)
        else:
            yield Path(entry.path)
