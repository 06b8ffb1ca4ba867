"""The receivers of a node without the rest of it: python -m benchmarks.several_receivers CONFIG

As the supervisor starts them: `receive.processes` of them on one listening socket with one count of associations.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

from config import load_settings
from node.running.process import PARENT_PIPE, on_signal
from node.running.receivers import Receivers
from node.wiring import open_ledger, run_dir


def main() -> None:
    config = Path(sys.argv[1])
    settings = load_settings(config)
    stop = on_signal(signal.SIGTERM)
    open_ledger(settings).close()  # made once, before several open it
    run_dir(settings).mkdir(parents=True, exist_ok=True)
    receivers = Receivers(settings)
    command = [sys.executable, "-m", "node.cli", "serve", "--role", "receive", "--config", str(config)]
    started = []
    for child in receivers.children():
        more, descriptors = receivers.given(child)
        env = {**os.environ, **more, PARENT_PIPE: "1"}
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, env=env, pass_fds=descriptors))
    receivers.open()
    stop.wait()
    for process in started:
        process.terminate()
    for process in started:
        process.wait()
    receivers.close()


if __name__ == "__main__":
    main()
