"""The process that runs the models, and does nothing else: what an image makes of it ends here.

It loads the packages that it is told to, by their digest, tests them as any process does that runs them, and answers
one batch after another until its input ends.
"""

import contextlib
import os
import resource
import select
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import structlog

from config.settings import Settings
from inference.errors import PackageError, ProviderError
from inference.frames import Said, read, write
from inference.opened import Opened, Session
from inference.package import Package, load_package
from inference.session import load

MORE_MEMORY: Final = 4 << 30  # beyond what the loaded models hold; no batch that was ever seen takes a tenth of it
MORE_SHARE: Final = 0.5  # at most, of the machine's
Event = dict[str, Any]


def main() -> None:
    """Serve until stdin ends."""
    for number in (signal.SIGTERM, signal.SIGINT):  # whoever started it decides when it ends
        signal.signal(number, signal.SIG_IGN)
    stdin, stdout = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing that a runtime prints may look like an answer
    threading.Thread(target=_follow_parent, args=(stdin.fileno(),), daemon=True).start()
    with contextlib.suppress(BrokenPipeError):
        _work(stdin, stdout)


def _work(stdin: BinaryIO, stdout: BinaryIO) -> None:
    asked = read(stdin)
    if asked is None:
        return
    first, _ = asked
    if first["nice"]:
        with contextlib.suppress(OSError):
            os.nice(int(first["nice"]))
    events = _collected()
    try:
        packages = [_package(Path(folder), digest) for folder, digest in first["packages"]]
        opened = load(packages, Settings.model_validate(first["settings"]))
    except (PackageError, ProviderError) as error:
        write(stdout, {"error": type(error).__name__, "reason": str(error), "events": events})
        return
    _limit()
    write(stdout, {"opened": _told(opened), "events": events})
    _serve(opened, stdin, stdout)


def _follow_parent(fd: int) -> None:
    """Whoever asks is gone: nobody waits for what is being loaded or computed, were it never to end."""
    poll = select.poll()
    poll.register(fd, 0)  # its end is told unasked
    poll.poll()
    os._exit(0)


def _serve(opened: Opened, stdin: BinaryIO, stdout: BinaryIO) -> None:
    while (asked := read(stdin)) is not None:
        said, (tensors,) = asked
        events = _collected()
        try:
            answer, blobs = _run(opened.sessions[said["digest"]], tensors, said["shape"])
        except Exception as error:  # noqa: BLE001  the loop's top: the next batch may do better
            answer, blobs = {"failed": type(error).__name__}, []
        write(stdout, {**answer, "events": events}, blobs)


def _run(session: Session, tensors: bytes, shape: Sequence[int]) -> tuple[Said, list[memoryview]]:
    outputs = session.run(np.frombuffer(tensors, np.float32).reshape(shape))
    arrays = [np.ascontiguousarray(array, np.float32) for array in outputs.arrays()]
    return {"shapes": [array.shape for array in arrays], "roles": list(outputs.places)}, [a.data for a in arrays]


def _package(folder: Path, digest: str) -> Package:
    """Raises PackageError: it is no longer what the role read."""
    package = load_package(folder)
    if package.digest != digest:
        raise PackageError(f"{folder}: it was replaced by another while it was in use")
    return package


def _told(opened: Opened) -> Said:
    return {
        "provider": opened.computing.provider,
        "wished": opened.computing.wished,
        "sessions": {digest: [one.words, one.together] for digest, one in opened.sessions.items()},
        "refused": {one.digest: one.reason for one in opened.refused},
    }


def _collected() -> list[Event]:
    """What is logged from now on: whoever asked logs it as his own."""
    events: list[Event] = []

    def collect(logger: object, method: str, event: Any) -> Any:
        event.pop("exc_info", None)
        events.append({"level": method, **{key: str(value) for key, value in event.items()}})
        raise structlog.DropEvent

    structlog.configure(processors=[collect], cache_logger_on_first_use=False)
    return events


def _limit() -> None:
    """An image that would have it take the machine's memory kills it, and not whoever the kernel finds."""
    held = 0
    if sys.platform.startswith("linux"):
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        held = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:")), 0)
    most = held + more_memory(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if held and (hard == resource.RLIM_INFINITY or most < hard):
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # it would hold an image


def more_memory(machine: int) -> int:
    """machine: its memory in bytes, or at most 0 where nobody knows."""
    return min(MORE_MEMORY, int(machine * MORE_SHARE)) if machine > 0 else MORE_MEMORY


if __name__ == "__main__":
    main()
