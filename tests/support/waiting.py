"""Wait for a truth with a deadline; never sleep and hope."""

import socket
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], within_s: float, every_s: float = 0.02) -> T:
    """The first truthy value of `condition`; an assertion inside it counts as "not yet".

    Raises the last AssertionError, or TimeoutError with the last value, when the deadline passes.
    """
    deadline = time.monotonic() + within_s
    while True:
        failure: AssertionError | None = None
        value: T | None = None
        try:
            value = condition()
        except AssertionError as error:
            failure = error
        if failure is None and value:
            return value
        if time.monotonic() >= deadline:
            if failure is not None:
                raise failure
            raise TimeoutError(f"not true within {within_s:g} s; the last value was {value!r}")
        time.sleep(every_s)


def listens(port: int) -> bool:
    """Whether somebody accepts connections on this port of loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
