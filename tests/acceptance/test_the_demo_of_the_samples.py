"""What a newcomer sees first: `opentriage demo` with the six shipped samples and the shipped model."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from inference.package import default_models_dir, find_packages
from node.demo import SAMPLES
from tests.support.realdata import ROOT


@pytest.mark.timeout(400)
def test_the_six_samples_come_back_within_a_minute_of_work() -> None:
    if not list(SAMPLES.glob("*.dcm")) or not find_packages(default_models_dir()):
        pytest.skip("the samples or the model package are not made yet")
    command = [sys.executable, "-m", "node.cli", "demo"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=350, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(r"…(\d{12})", done.stdout)
    assert len(set(rows)) == 6
    assert "not assessed" not in done.stdout  # the gate accepts the samples
    assert "pneumonia" in done.stdout
    assert "no flagged finding; other disease was not looked for" in re.sub(
        r"\s+", " ", re.sub("[│┃]", " ", done.stdout)
    )
    assert "contains: " in done.stdout
    (overlay, *_) = re.findall(r"Overlay: +(\S+\.png)", done.stdout)
    assert Path(overlay).stat().st_size > 1000
