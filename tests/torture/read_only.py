"""Beyond the list: a node of a user without any right, on a root file system that cannot be written but for its state
folder and a small /tmp, as the container and the systemd unit have it. It must receive, look and report as elsewhere.

bubblewrap makes the surroundings: namespaces of user and mounts, no capability.
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from config import load_settings
from node import notices
from node.wiring import open_ledger
from tests.support.peers import free_port
from tests.support.realdata import ROOT
from tests.torture.experiment import Arm, Context, Control, register

USER = "10001"
READY_WITHIN_S, REPORTED_WITHIN_S = 180.0, 180.0
PLACES = ("/etc/x", "/usr/x", "/var/x", str(ROOT / "x"))
TRY = "import sys\nfor p in sys.argv[1:]:\n  try: open(p, 'w'); print(p)\n  except OSError: pass"


def shut_in(state: Path, *command: str, writable: bool = True) -> list[str]:
    """The command line of `command` in these surroundings."""
    return [
        "bwrap", "--unshare-user", "--uid", USER, "--gid", USER, "--cap-drop", "ALL", "--die-with-parent",
        "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--size", str(64 << 20), "--tmpfs", "/tmp",
        "--ro-bind", str(ROOT), str(ROOT), "--bind" if writable else "--ro-bind", str(state), str(state),
        "--chdir", str(ROOT), "--setenv", "PYTHONDONTWRITEBYTECODE", "1", "--", *command,
    ]  # fmt: skip


def life(context: Context, writable: bool = True) -> Arm:
    """Start, receive, look, report, stop."""
    arm = Arm(done="one study")
    if shutil.which("bwrap") is None:
        arm.not_run = "bubblewrap is not installed (Debian package bubblewrap)"
        return arm
    state = context.folder / "state"
    state.mkdir(mode=0o700)
    if subprocess.run(shut_in(state, "true"), capture_output=True, check=False).returncode:
        arm.forbidden = "this machine does not allow namespaces of users and mounts"
        return arm
    config = context.folder / "site.toml"
    config.write_text(
        f'[node]\nstate_dir = "{state}"\n[receive]\nhost = "127.0.0.1"\nport = {free_port()}\n'
        "free_disk_min_bytes = 1000000\n[study]\ncomplete_after_s = 1.0\ncomplete_after_min_s = 1.0\n"
        f"triage_max_age_h = 1e9\n[heartbeat]\nevery_s = 0\n[web]\nport = {free_port()}\n"
    )
    shutil.copy(config, state / "site.toml")
    log = (context.folder / "node.log").open("wb")
    serve = shut_in(
        state, sys.executable, "-m", "node.cli", "serve", "--config", str(state / "site.toml"), writable=writable
    )
    with log, subprocess.Popen(serve, stdout=log, stderr=log, stdin=subprocess.DEVNULL) as node:
        try:
            _live(arm, config, state, node)
        finally:
            node.terminate()
            arm.figures["exit"] = str(node.wait(180))
    return arm


def _live(arm: Arm, config: Path, state: Path, node: "subprocess.Popen[bytes]") -> None:
    settings = load_settings(config)
    tried = subprocess.run(
        shut_in(state, sys.executable, "-c", TRY, *PLACES), capture_output=True, text=True, check=False
    )
    arm.require(tried.returncode == 0 and not tried.stdout, f"could be written: {tried.stdout or tried.stderr}")
    ready = _wait(lambda: node.poll() is not None or bool(notices.read(settings, "node")), READY_WITHIN_S)
    arm.require(ready and node.poll() is None, "the node did not become ready")
    if arm.broken:
        return
    sample = next((ROOT / "node" / "samples").glob("*.dcm"))
    command = [
        sys.executable,
        "-m",
        "node.cli",
        "send",
        str(sample),
        "--to",
        f"OPENTRIAGE@127.0.0.1:{settings.receive.port}",
    ]
    sent = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    arm.counts["sent"], arm.counts["acked"] = 1, int("0x0000" in sent.stdout)
    ledger = open_ledger(settings)
    reported = _wait(lambda: any(entry.report_kind for entry in ledger.worklist()), REPORTED_WITHIN_S)
    ledger.close()
    arm.counts["missing"] = 1 - int(reported)
    arm.require(reported, "the study was not reported")


def _wait(condition: Callable[[], bool], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


register(
    41,
    "a node without a right on a read-only root",
    life,
    suite="hospital",
    its_state_cannot_be_written=Control(
        r"the node did not become ready", lambda context: life(context, writable=False)
    ),
)
