"""Where a receiver's processor time goes: perf's samples of one round, by system call and by library.

Run: PYTHONPATH=. .venv/bin/python -m benchmarks.receive_profile --receiver native --kind CT (needs Linux perf and the
right to use it). Shares are of samples, so they bear a busy machine; perf itself adds some percent to every figure.
"""

import argparse
import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from benchmarks.instances import KINDS, make
from benchmarks.receivers import receivers, running
from benchmarks.senders import environment, send
from benchmarks.watched import Watched

PER_SECOND = 1997
LIBRARIES = {
    "libcrypto": "SHA-256 (libcrypto)",
    "_sha2": "SHA-256 (Python)",
    "sqlite": "SQLite",
    "libpython": "Python",
    "python3": "Python",
    "libc.so": "libc (copies, locks)",
}
MOST = 14


class Lived:
    """Every process of a receiver that was seen while the block ran."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.pids: set[int] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._done.wait(0.05):
            self.pids.update(self._watched.pids())


def where(chain: list[tuple[str, str]]) -> str:
    """chain: (symbol, object) from the leaf up. The system call if it is in one, else the library of the leaf."""
    symbols = [symbol for symbol, _ in chain]
    if "do_syscall_64" in symbols:
        name = symbols[max(0, symbols.index("do_syscall_64") - 1)]
        return f"kernel: {name.removeprefix('__x64_').removeprefix('__').removeprefix('k')}"
    place = chain[0][1]
    if "kernel" in place or place.startswith("["):
        return "kernel: page faults, interrupts, scheduling"
    return next((said for part, said in LIBRARIES.items() if part in place), Path(place).name.split(".")[0])


def chains(text: str, pids: set[int]) -> Iterator[list[tuple[str, str]]]:
    """Of `perf script -F pid,ip,sym,dso`: a line with the process, its chain, an empty line; only of `pids`."""
    for sample in text.split("\n\n"):
        pid, *lines = sample.strip().splitlines() or ["0"]
        if int(pid) in pids and lines:
            yield [_frame(line) for line in lines]


def _frame(line: str) -> tuple[str, str]:
    symbol, _, place = line.strip().partition(" ")[2].rpartition(" (")
    return symbol, place.rstrip(")")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--receiver", choices=receivers(), default="native")
    parser.add_argument("--kind", choices=KINDS, default="CT")
    parser.add_argument("--associations", type=int, default=4)
    parser.add_argument("--each", type=int, default=200, help="instances per association")
    chosen = parser.parse_args()
    env = environment(no_delay=True)
    with tempfile.TemporaryDirectory(prefix="bench-profile-") as name:
        folder = Path(name)
        path = make(KINDS[chosen.kind], folder)
        with running(receivers()[chosen.receiver], folder / "receiver", env) as one:
            send(path, one.port, chosen.associations, 10, env)
            record = ["perf", "record", "-q", "-F", str(PER_SECOND), "-g", "-a", "-o", str(folder / "data")]
            perf = subprocess.Popen(record)
            cpu = one.watched.cpu_s()
            with Lived(one.watched) as lived:
                sent = send(path, one.port, chosen.associations, chosen.each, env)
            each_ms = (one.watched.cpu_s() - cpu) / sent.instances * 1e3
            perf.terminate()
            perf.wait()
        script = ["perf", "script", "-i", str(folder / "data"), "-F", "pid,ip,sym,dso"]
        text = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    counted = Counter(where(chain) for chain in chains(text, lived.pids))
    name, samples = f"{receivers()[chosen.receiver].name}, {chosen.kind} x {chosen.associations}", sum(counted.values())
    print(f"{name}, n {sent.instances}: {each_ms:.2f} ms of processor an instance, {samples} samples")
    for name, count in counted.most_common(MOST):
        share = count / samples
        print(f"  {name:<48}{share:6.1%}{share * each_ms:9.3f} ms")


if __name__ == "__main__":
    main()
