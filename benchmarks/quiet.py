"""Whether the machine is ours: the share of its cores that others use, before a round and during it."""

import os
import time
from pathlib import Path

CORES = os.cpu_count() or 1
TICKS = os.sysconf("SC_CLK_TCK")
QUIET = 0.06  # of all cores
LOOK_S = 0.4


def busy_s() -> float:
    """Processor seconds that the machine has spent since it started, whoever for; what a hypervisor took included."""
    user, nice, system, _, _, irq, softirq, steal, *_ = map(
        int, Path("/proc/stat").read_text().split("\n")[0].split()[1:]
    )
    return (user + nice + system + irq + softirq + steal) / TICKS


def wait_until_quiet(patience_s: float) -> bool:
    """Returns when the machine is quiet, or False when it was not for `patience_s`."""
    deadline = time.monotonic() + patience_s
    while True:
        began, at = busy_s(), time.monotonic()
        time.sleep(LOOK_S)
        if (busy_s() - began) / (time.monotonic() - at) / CORES < QUIET:
            return True
        if time.monotonic() > deadline:
            return False


class Others:
    """The cores' share that neither the measured programs nor this one used while the block ran."""

    def __enter__(self) -> "Others":
        self._busy, self._own, self._at = busy_s(), time.process_time(), time.monotonic()
        self.share = 0.0
        return self

    def __exit__(self, *error: object) -> None:
        self.own_s = time.process_time() - self._own
        self._spent = busy_s() - self._busy - self.own_s
        self._wall = time.monotonic() - self._at

    def without(self, measured_s: float) -> float:
        """measured_s: processor seconds of the measured programs."""
        return max(0.0, self._spent - measured_s) / self._wall / CORES
