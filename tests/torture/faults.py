"""Ways to break the acknowledgement contract on purpose, patched into a receiver before it starts.

A control arm names one: the experiment must then find losses, or it proves nothing.
"""

import importlib
import threading
import time
from collections.abc import Callable

from ledger.store import PartFile, Store
from scp.admission.admitter import AdmissionSink
from scp.status import OUT_OF_RESOURCES, SUCCESS, Answer


def apply(name: str) -> None:
    """A function of this module, or of `module:function` of this folder."""
    module, _, function = name.rpartition(":")
    getattr(importlib.import_module(f"tests.torture.{module or 'faults'}"), function)()


def answer_early() -> None:
    """Success first, the work a little later."""
    real = AdmissionSink.commit

    def commit(self: AdmissionSink) -> Answer:
        def later() -> None:
            time.sleep(0.05)
            real(self)

        threading.Thread(target=later, daemon=True).start()
        return Answer(SUCCESS)

    AdmissionSink.commit = commit  # type: ignore[method-assign]


def shrug_at_errors() -> None:
    """Success, whatever went wrong on our side."""
    real = AdmissionSink.commit

    def commit(self: AdmissionSink) -> Answer:
        answer = real(self)
        return Answer(SUCCESS) if answer.status == OUT_OF_RESOURCES else answer

    AdmissionSink.commit = commit  # type: ignore[method-assign]


def sync_again() -> None:
    """A sync that failed is done again, and its second answer believed. The kernel has long forgotten the bytes."""
    real = Store._sync

    def sync(self: Store, how: Callable[[int], None], fd: int) -> None:
        try:
            how(fd)
        except OSError:
            real(self, how, fd)

    Store._sync = sync  # type: ignore[method-assign, assignment]


def leave_parts() -> None:
    """What was refused stays where it is."""
    PartFile.abort = lambda self: None  # type: ignore[method-assign]
