"""Where receivers are born: `python -m tests.torture.nursery`, one JSON request a line, one JSON answer a line.

It imports everything once and forks a child for each receiver before any thread runs, because a thousand rounds of
importing for a second each would leave no time to torture. The child is the product's own receiver, with whatever
faults the request names patched in (tests/torture/faults.py); the product itself has no switch for any of them.
"""

import contextlib
import ctypes
import faulthandler
import gc
import importlib
import json
import os
import resource
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import alembic.command
import alembic.config  # noqa: F401
from prometheus_client import generate_latest

from config.settings import Settings
from ledger.ledger import Ledger
from ledger.store import Store
from node.logging import configure
from node.running.process import on_signal
from scp.receiver import Receiver
from tests.torture import faults

PR_SET_PDEATHSIG = 1
LOOK_EVERY_S = 0.05
EXIT_VOLUME_FAILED = 74
Request = dict[str, Any]


def main() -> None:
    for name in ("scp.network.native_engine", "scp.network.pynetdicom_engine"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    print("ready", flush=True)
    gc.freeze()
    listeners: dict[int, socket.socket] = {}
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(DEEDS[request["do"]](request, listeners)), flush=True)


def listen(request: Request, listeners: dict[int, socket.socket]) -> Request:
    """A listener that children share; they are told of it by its number."""
    address = ("127.0.0.1", request["port"])
    listener = socket.create_server(address, backlog=128, reuse_port=request["reuse_port"])
    listeners[listener.fileno()] = listener
    return {"listener": listener.fileno(), "port": int(listener.getsockname()[1])}


def forget(request: Request, listeners: dict[int, socket.socket]) -> Request:
    listeners.pop(request["listener"]).close()
    return {}


def wait(request: Request, listeners: dict[int, socket.socket]) -> Request:
    """How a child ended; None while it lives and `block` is not asked for."""
    pid, status = os.waitpid(request["pid"], 0 if request["block"] else os.WNOHANG)
    return {"status": os.waitstatus_to_exitcode(status) if pid else None}


def bear(request: Request, listeners: dict[int, socket.socket]) -> Request:
    """Fork a receiver. The answer has its pid, and its port or what it died of."""
    hear, say = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(hear)
        _live(request, say, listeners)
    os.close(say)
    with os.fdopen(hear, "rb") as pipe:
        said = pipe.readline()
    return {"pid": pid, **(json.loads(said) if said else {"died": True})}


def _live(request: Request, say: int, listeners: dict[int, socket.socket]) -> None:
    """The child, from its first to its last moment."""
    status = 70
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
        faulthandler.enable()  # its stacks, should an arm not end (tests/torture/watchdog.py)
        configure("debug", "receive")
        status = _receive(request, say, listeners)
    except BaseException:  # noqa: BLE001  this is the end of the process: all that is left is to say why
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)


def _receive(request: Request, say: int, listeners: dict[int, socket.socket]) -> int:
    stop = on_signal(signal.SIGTERM)
    for name, limit in request.get("limits", {}).items():
        number = getattr(resource, f"RLIMIT_{name}")
        resource.setrlimit(number, (limit, limit))
    for fault in request.get("faults", ()):
        faults.apply(fault)
    if request.get("shim"):
        shim = request["shim"]
        begun = ctypes.CDLL(None).torture_begin(*(os.fsencode(shim[key]) for key in ("root", "trace", "control")))
        if begun != 0:
            raise RuntimeError("the shim did not begin")
    settings = Settings.model_validate(request["settings"])
    ledger = Ledger.open(settings.database_url, Store(settings.node.state_dir / "store"))
    if request["reconcile"]:
        found = ledger.reconcile()
        reconciled: Request = {"lost": found.lost, "parts": found.parts_deleted, "orphans": found.orphans_moved}
    else:
        reconciled = {}
    own = listeners.pop(request.get("listener", 0), None)
    for other in listeners.values():
        other.close()
    receiver = Receiver(settings, ledger, own)
    receiver.start()
    os.write(say, json.dumps({"port": receiver.address[1], "reconciled": reconciled}).encode() + b"\n")
    os.close(say)
    _serve(request, receiver, stop)
    if receiver.failed and not request.get("stays"):
        return EXIT_VOLUME_FAILED
    receiver.stop(request.get("grace_s", 5.0))
    _show_metrics(request)
    return 0


def _serve(request: Request, receiver: Receiver, stop: threading.Event) -> None:
    """Until told to stop, or, as the role does, until the volume failed; one that was asked to stay stays."""
    looks = 0
    while not stop.wait(LOOK_EVERY_S):
        looks += 1
        if looks % 10 == 0:
            _show_metrics(request)
        if receiver.failed and not request.get("stays"):
            return


def _show_metrics(request: Request) -> None:
    Path(request["log"]).with_suffix(".metrics").write_bytes(generate_latest())


DEEDS = {"bear": bear, "listen": listen, "forget": forget, "wait": wait}

if __name__ == "__main__":
    main()
