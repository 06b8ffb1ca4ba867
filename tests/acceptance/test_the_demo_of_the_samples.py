"""What a newcomer sees first: `opentriage demo` with the six shipped samples and the shipped model."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.peers import need
from tests.support.realdata import ROOT


def check_with_dciodvfy(objects: list[Path]) -> None:
    """No error in any object that left the node."""
    tool = need("dciodvfy")
    assert len(objects) == 3 * (4 + 2) + 3  # flagged: provisional and final
    for path in objects:
        done = subprocess.run([str(tool), "-new", str(path)], capture_output=True, text=True, check=False)
        said = (done.stdout + done.stderr).splitlines()
        assert [line for line in said if "Error" in line] == []
        assert any(
            line.strip() in ("ComprehensiveSR", "EnhancedSR", "SCImage", "KeyObjectSelectionDocument") for line in said
        ), said


@pytest.mark.timeout(400)
def test_the_six_samples_come_back_within_a_minute_of_work() -> None:
    command = [sys.executable, "-m", "node.cli", "demo"]
    wide = {**os.environ, "COLUMNS": "200"}  # a table's cells on one line each
    done = subprocess.run(command, cwd=ROOT, env=wide, capture_output=True, text=True, timeout=350, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(r"…(\d{12})", done.stdout)
    assert len(set(rows)) == 6
    assert "not assessed" not in done.stdout  # the gate accepts the samples
    assert done.stdout.count("pneumonia >0.9") + done.stdout.count("pneumonia 0.") == 3
    assert done.stdout.count("no flagged finding; other disease was not looked for") == 3
    assert "contains: " in done.stdout
    (folder,) = re.findall(r"What the PACS got: +(\S+)", done.stdout)
    check_with_dciodvfy(sorted(Path(folder).iterdir()))
    (overlay, *_) = re.findall(r"Overlay: +(\S+\.png)", done.stdout)
    assert Path(overlay).stat().st_size > 1000
