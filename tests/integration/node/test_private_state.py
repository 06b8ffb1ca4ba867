"""What a node keeps is its user's alone, whatever the shell's umask was, and what was looser is mended at the start."""

import contextlib
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

from tests.support.dx import make_dx, write
from tests.support.peers import need
from tests.support.realdata import ROOT
from tests.support.running import RunningNode
from tests.support.waiting import wait_until

PROBE = """
import json, os, resource, sys
from pathlib import Path
from node.running.private_state import close_to_others
os.umask(0)
close_to_others()
Path(sys.argv[1]).touch()
print(json.dumps([resource.getrlimit(resource.RLIMIT_CORE), Path("/proc/self/mem").stat().st_uid]))
"""


def open_to_others(folder: Path) -> list[str]:
    found = []
    for path in [folder, *folder.rglob("*")]:
        with contextlib.suppress(FileNotFoundError):  # a part of a file, or a log of the ledger: it went meanwhile
            if stat.S_IMODE(path.lstat().st_mode) & 0o077:
                found.append(str(path))
    return found


def test_a_started_node_leaves_nothing_for_others_to_read_and_mends_what_it_finds(tmp_path: Path) -> None:
    """A whole node with a study in it, after an earlier run that was less careful."""
    node = RunningNode(tmp_path / "node")
    state = tmp_path / "node" / "state"
    for loose in (state, state / "store", state / "quarantine"):
        loose.mkdir(parents=True, exist_ok=True)
        loose.chmod(0o755)
    (state / "newest").touch()
    (state / "newest").chmod(0o644)
    before = os.umask(0)
    try:
        node.start()
    finally:
        os.umask(before)
    try:
        image = write(make_dx(), tmp_path / "x.dcm")
        command = [need("storescu"), "-aec", "OPENTRIAGE", "127.0.0.1", str(node.port), image]
        subprocess.run([*map(str, command)], check=True, timeout=60)
        wait_until(lambda: list((state / "store" / "objects").rglob("*.dcm")), within_s=100)
        assert open_to_others(state) == []
        [said] = [json.loads(line) for line in node.log.read_text().splitlines() if '"state_mended"' in line]
        assert said["count"] >= 4
    finally:
        node.stop()


def test_a_process_of_the_node_leaves_no_core_file_and_shows_nobody_its_memory(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROBE, str(tmp_path / "made")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    limit, owner = json.loads(done.stdout)
    assert limit == [0, 0]
    assert owner == 0  # root's, whoever runs it: prctl(2), PR_SET_DUMPABLE
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o600
