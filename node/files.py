"""Which files a command line means, and how those are written that name patients."""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path


def missing(paths: Iterable[Path]) -> list[Path]:
    """The paths that do not exist: wrong usage."""
    return [path for path in paths if not path.exists()]


def walk(paths: Iterable[Path]) -> Iterator[Path]:
    """Every file named or below a folder named, in a stable order; hidden files of folders are left out."""
    for path in paths:
        if path.is_dir():
            yield from sorted(
                inner
                for inner in path.rglob("*")
                if inner.is_file() and not any(part.startswith(".") for part in inner.relative_to(path).parts)
            )
        else:
            yield path


def private(path: str, flags: int) -> int:
    """For `open(..., opener=private)`: a file for its owner alone, also where it was there before."""
    descriptor = os.open(path, flags, 0o600)
    with suppress(PermissionError):  # a volume that knows no modes
        os.fchmod(descriptor, 0o600)
    return descriptor
