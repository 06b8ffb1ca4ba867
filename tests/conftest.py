"""Fixtures for every test; what needs more lives beside its tests."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis
from pynetdicom.transport import AssociationSocket

from tests.support import realdata

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # a test may import ONNX Runtime before any package of ours
os.environ.pop("COLUMNS", None)  # pytest-xdist sets it, and a console keeps for ever what it found when it was made
for wish in ("FORCE_COLOR", "GITHUB_ACTIONS", "PY_COLORS", "TTY_COMPATIBLE", "TERMINAL_WIDTH"):
    os.environ.pop(wish, None)  # with any of these, rich and typer write colours or other widths into what tests read
# Neither a machine that is busy for 0.2 s nor chance decides whether a test passes: the same examples each time, as in
# tests/fuzz. Others are tried with `--hypothesis-profile=chance` (and `--hypothesis-seed`).
QUIET = {"deadline": None, "database": None, "suppress_health_check": [HealthCheck.too_slow]}
hypothesis.register_profile("chance", print_blob=True, **QUIET)
hypothesis.register_profile("same", derandomize=True, **QUIET)
hypothesis.load_profile("same")
# The same folders as norecursedirs in pyproject.toml.
APART = {name: f"make test-{name}" for name in ("acceptance", "page", "peers", "train", "viewers")}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """A walk over the tests enters neither folder: so that nobody takes it for all, each is named with what runs it."""
    here = Path(__file__).parent
    asked = [Path(config.invocation_params.dir, argument.partition("::")[0]).resolve() for argument in config.args]
    for folder, command in APART.items():
        if here / folder not in asked and any(path in (here / folder).parents for path in asked):
            terminalreporter.write_line(f"NOT RUN: tests/{folder}, which `{command}` runs", yellow=True)


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """A test that configures logging configures it for itself alone."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session", autouse=True)
def closed_sockets() -> Iterator[None]:
    """pynetdicom 3.0.4 skips close() when shutdown() fails, as it does after a refused connection.

    The collector then closes the socket, with a warning that strikes a test that has nothing to do with it. Our own
    leaks still fail.
    """

    def shut_and_close(self: AssociationSocket) -> None:
        if self.socket is not None:
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
            self.socket.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AssociationSocket, "_shutdown_socket", shut_and_close)
        yield


@pytest.fixture
def data() -> Path:
    """The folder of real images; skips when absent."""
    return realdata.data_dir()
