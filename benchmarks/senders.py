"""DCMTK's storescu, several at once, each with one association and one file sent again and again under new UIDs."""

import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.peers import need

PATIENCE_S = 240.0  # a sender that hangs ends the round


@dataclass(frozen=True)
class Sent:
    """One round of sending. failed: senders that did not end well."""

    instances: int
    wall_s: float
    cpu_s: float
    failed: int


def environment(no_delay: bool) -> dict[str, str]:
    """TCP_NODELAY=1 for DCMTK and Orthanc, or DCMTK's default: Nagle's algorithm on."""
    kept = {key: value for key, value in os.environ.items() if key != "TCP_NODELAY"}
    return {**kept, "TCP_NODELAY": "1"} if no_delay else kept


def send(path: Path, port: int, associations: int, each: int, env: Mapping[str, str]) -> Sent:
    """From the first sender's start to the last one's end."""
    command = [str(need("storescu")), "-aec", "OPENTRIAGE", "-aet", "BENCH", "--repeat", str(each), "+II"]
    command += ["127.0.0.1", str(port), str(path)]
    began = time.monotonic()
    senders = [
        subprocess.Popen(command, env=dict(env), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(associations)
    ]
    cpu_s, failed = 0.0, 0
    for sender in senders:
        status, spent = _wait(sender, began + PATIENCE_S)
        cpu_s += spent
        failed += status != 0
    return Sent(associations * each, time.monotonic() - began, cpu_s, failed)


def _wait(sender: subprocess.Popen[bytes], deadline: float) -> tuple[int, float]:
    """Exit status and processor seconds."""
    while time.monotonic() < deadline:
        if os.waitid(os.P_PID, sender.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG):
            break
        time.sleep(0.002)
    else:
        sender.kill()
    _, status, used = os.wait4(sender.pid, 0)
    sender.returncode = os.waitstatus_to_exitcode(status)
    return sender.returncode, used.ru_utime + used.ru_stime
