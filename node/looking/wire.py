"""How other roles have an image looked at: one question and one answer over the Unix socket of the analyse role.

Frames are a length (4 bytes, little endian) and JSON; an answer's JSON says in `blob` how many bytes follow it. Images
are named by their path, which must be below the uploads or the stored instances. Who may connect: this user.
"""

import errno
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, Final, Literal

from config import Settings
from ledger.errors import PermanentError, RetryableError
from node.wiring import run_dir

NAME: Final = "look.sock"
QUESTION_MAX, ANSWER_MAX, BLOB_MAX = 1 << 16, 1 << 24, 1 << 26
HEADERS_MAX: Final = 100  # images of one question
NOT_NOW: Final[Literal[False]] = False  # among the headers of an answer: it could not be read this time
SLACK_S: Final = 5.0  # what the answer itself may take, once the analyser has given up
UPLOADS: Final = "uploads"
SHORT_S: Final = 0.2
_SHORT: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ECONNABORTED})
_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred: process, user, group


@dataclass(frozen=True)
class Reply:
    """said: JSON values; blob: such as a picture."""

    said: Mapping[str, Any] = field(default_factory=dict)
    blob: bytes = field(default=b"", repr=False)


class NoAnalyser(RetryableError):
    """Nobody looks at images on this machine now, or not in time. retry_s: when to come back."""

    def __init__(self, text: str, retry_s: int = 5) -> None:
        super().__init__(text)
        self.retry_s = retry_s


class Refusal(PermanentError):
    """The image cannot be looked at, or shown; the text says why, and names nobody."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


def ask(settings: Settings, verb: str, within_s: float, slack_s: float = SLACK_S, /, **question: Any) -> Reply:
    """What the analyse role answers to `verb` (node/looking/server.py). Raises NoAnalyser, Refusal."""
    until = monotonic() + within_s + slack_s
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(within_s + slack_s)
            with address(settings) as where:
                connection.connect(where)
            send(connection, {"verb": verb, "within_s": within_s, **question})
            said = receive(connection, ANSWER_MAX, until)
            blob = read(connection, min(int(said.get("blob", 0)), BLOB_MAX), until)
    except TimeoutError:
        raise NoAnalyser("no analyser answered in time", 30) from None
    except (OSError, ValueError, TypeError, EOFError):
        raise NoAnalyser("no analyser is running on this machine") from None
    match said.get("outcome"):
        case "done":
            return Reply(said.get("said", {}), blob)
        case "refused":
            raise Refusal(str(said.get("code", "")), str(said.get("reason", "")))
        case "busy":
            raise NoAnalyser(str(said.get("reason", "")), 30)
    raise NoAnalyser("the analyser could not answer; its log says why")


def callers(listener: socket.socket) -> Iterator[socket.socket]:
    """Whoever connects, until the listener is shut down. Where this machine is short of something he waits."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError as error:
            if error.errno not in _SHORT:
                return
            time.sleep(SHORT_S)
            continue
        yield connection


class Listener:
    """The socket `name` of the run folder, for this user alone; no more than `most` wait to be taken."""

    def __init__(self, settings: Settings, name: str, most: int) -> None:
        self._settings, self._name, self._most = settings, name, most
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def start(self, accept: Callable[[Iterator[socket.socket]], None]) -> None:
        """`accept` has a thread of its own, and whoever calls. Raises OSError."""
        (run_dir(self._settings) / self._name).unlink(missing_ok=True)
        with address(self._settings, self._name) as where:
            self._socket.bind(where)
            os.chmod(where, 0o600)  # noqa: PTH101  by way of the folder's descriptor
        self._socket.listen(self._most)
        threading.Thread(target=accept, args=(callers(self._socket),), name=self._name, daemon=True).start()

    def stop(self) -> None:
        """Nobody is taken any more."""
        (run_dir(self._settings) / self._name).unlink(missing_ok=True)
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes who waits in accept()
        self._socket.close()


def serve_apart(
    serve: Callable[[socket.socket], None], connection: socket.socket, places: threading.BoundedSemaphore
) -> None:
    """`serve`, which gives back the place that its caller took, in a thread of its own. Where there is no thread to
    give, this caller is turned away, and not everybody after him."""
    try:
        threading.Thread(target=serve, args=(connection,), daemon=True).start()
    except RuntimeError:
        connection.close()
        places.release()


def is_ours(connection: socket.socket) -> bool:
    """Whether the process at the other end is this user's, or root's."""
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return _CREDENTIALS.unpack(packed)[1] in (os.geteuid(), 0)


@contextmanager
def address(settings: Settings, name: str = NAME) -> Iterator[str]:
    """The socket by way of its open folder: its name may have 107 bytes, which a long state_dir uses up."""
    folder = os.open(run_dir(settings), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{name}"
    finally:
        os.close(folder)


def uploads_dir(settings: Settings) -> Path:
    """Where what was uploaded lies while it is looked at."""
    folder = settings.node.state_dir / UPLOADS
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def send(connection: socket.socket, said: Mapping[str, Any], blob: bytes = b"") -> None:
    """One frame, and what follows it."""
    text = json.dumps({**said, "blob": len(blob)} if blob else said).encode()
    connection.sendall(struct.pack("<I", len(text)) + text)
    if blob:  # nothing is sent to who has his answer and may be gone
        connection.sendall(blob)


def receive(connection: socket.socket, most: int, until: float) -> dict[str, Any]:
    """One frame. until: time.monotonic(). Raises OSError, ValueError, EOFError, TimeoutError."""
    size = int(struct.unpack("<I", read(connection, 4, until))[0])
    if size > most:
        raise ValueError("the frame is too long")
    said = json.loads(read(connection, size, until))
    if not isinstance(said, dict):
        raise ValueError("the frame is no object")
    return said


def read(connection: socket.socket, size: int, until: float) -> bytes:
    """Exactly `size` bytes."""
    buffer, filled = bytearray(size), 0
    view = memoryview(buffer)
    while filled < size:
        left_s = until - monotonic()
        if left_s <= 0:
            raise TimeoutError
        connection.settimeout(left_s)
        got = connection.recv_into(view[filled:])
        if not got:
            raise EOFError
        filled += got
    return bytes(buffer)
