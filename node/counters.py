"""Counters of the role processes, in prometheus-client's multiprocess files: each role writes its own, web reads all.

Only what never reaches the ledger is counted so (refused associations, bytes); see node/metrics.py for the rest.
"""

import os
from pathlib import Path

from config import Settings
from node.wiring import run_dir

COUNTERS = "PROMETHEUS_MULTIPROC_DIR"  # prometheus-client reads it when it is imported, so children get it at birth


def counters_dir(settings: Settings) -> Path:
    """The folder of the counter files of this run."""
    folder = run_dir(settings) / "counters"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def clear_counters(settings: Settings) -> None:
    """Start from zero, as counters do when their process starts."""
    for path in counters_dir(settings).glob("*.db"):
        path.unlink(missing_ok=True)


def forget_process(settings: Settings, pid: int) -> None:
    """A process died: its gauges of the living end, its counters stay."""
    for path in counters_dir(settings).glob(f"gauge_live*_{pid}.db"):
        path.unlink(missing_ok=True)


def counted_here() -> bool:
    """Whether this process was given a folder of counters."""
    return bool(os.environ.get(COUNTERS))
