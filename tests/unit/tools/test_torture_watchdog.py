"""A torture arm that never ends is ended, and shows where everybody stood."""

import subprocess
import sys
import threading
from pathlib import Path

from tests.support.realdata import ROOT
from tests.torture.watchdog import bounded

HANGS = """
import subprocess, sys, threading
from pathlib import Path
from tests.torture.watchdog import bounded

def never():
    threading.Event().wait()

child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "a-receiver"])
Path(sys.argv[1], "receiver-1.log").write_text("the last words of a receiver")
with bounded("2 power cuts", 0.2, Path(sys.argv[1])):
    never()
"""


def test_an_arm_that_never_ends_is_ended_and_shows_where_everybody_stood(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HANGS, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    for shown in ("2 power cuts: not ended after 0.2 s", "in never", "a-receiver", "the last words of a receiver"):
        assert shown in done.stderr


def test_an_arm_that_ends_is_left_alone(tmp_path: Path) -> None:
    with bounded("2 power cuts", 600, tmp_path):
        (watchdog,) = (thread for thread in threading.enumerate() if thread.name == "watchdog")
    watchdog.join(60)
    assert not watchdog.is_alive()
