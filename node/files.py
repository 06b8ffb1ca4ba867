"""Which files a command line means."""

from collections.abc import Iterable, Iterator
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
