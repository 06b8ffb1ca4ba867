"""What the experiments on images and models share: an analyser over a tiny package, and a decode child that can be
mutated. The child is a process of its own, so a control changes the program that it is started with.
"""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import onnxruntime
import structlog

from config.settings import LookSettings, Settings
from inference import sandbox
from inference.analyser import Analyser, Looked, Source
from inference.package import installed
from ledger.records import ImageResult, ResultStatus
from tests.support.packages import write_package

onnxruntime.set_default_logger_severity(3)  # the tiny package's graph has more than it uses
ENTRY = "from inference.decode_child import main"


@contextlib.contextmanager
def analyser(
    folder: Path, look: dict[str, Any] | None = None, package: dict[str, Any] | None = None
) -> Iterator[Analyser]:
    """Over the packages of `folder`/models; one tiny one is written where there is none yet."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    root = folder / "models"
    if package is not None or not root.exists():
        write_package(root, **(package or {}))
    settings = LookSettings(models_dir=root, threads=1, **(look or {}))
    found = installed(settings)
    made = Analyser(Settings(look=settings), found.packages, children=1, refused=found.refused)
    try:
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def mutated_child(code: str) -> Iterator[None]:
    """Decode children that are started meanwhile run `code` first; "": as they are."""
    if not code:
        yield
        return
    assert ENTRY in sandbox.PROGRAM
    with patch.object(sandbox.DecodeChild, "program", sandbox.PROGRAM.replace(ENTRY, f"{code}; {ENTRY}")):
        yield


def look(made: Analyser, paths: Sequence[Path]) -> list[ImageResult]:
    """The one result of each file."""
    looked: list[Looked] = made.analyse([Source(path) for path in paths])
    return [one.results[0] for one in looked]


def is_inferred(result: ImageResult) -> bool:
    return result.status is ResultStatus.ANALYSED


def memory_kb(pid: int | str, what: str) -> int:
    """VmHWM, the most that was ever resident, or VmRSS. 0 when the process is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{what}:")), 0)
