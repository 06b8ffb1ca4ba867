"""The children that decode and that run models import without the garbage collector, and work with it."""

import subprocess
import sys

import pytest

from inference import model_process, sandbox
from tests.support.realdata import ROOT


@pytest.mark.parametrize("program", [sandbox.PROGRAM, model_process.PROGRAM], ids=["decoding", "models"])
def test_a_child_collects_nothing_while_it_imports_and_collects_again_when_it_works(program: str) -> None:
    before, main = program.rsplit("; ", 1)
    assert main == "main()"
    assert "gc.disable()" in before.partition("from inference")[0]
    asks = f"{before}; print(gc.isenabled(), gc.get_freeze_count() > 10_000)"
    said = subprocess.run(
        [sys.executable, "-P", "-c", asks, str(ROOT)], capture_output=True, text=True, check=True, timeout=60
    )
    assert said.stdout.split() == ["True", "True"]
