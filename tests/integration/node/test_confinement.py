"""What a role gave up it cannot have, whoever commands it: real processes, a real kernel, one attempt after another."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from inference import landlock, seccomp
from node.running.confine import ROLES
from tests.support.postgres import postgres_server
from tests.support.realdata import ROOT

PROBE = """
import json, os, socket, subprocess, sys, threading
from pathlib import Path
from config import load_settings
from node.running.confine import confine
role, config, folder, port, elsewhere = sys.argv[1:]
folder, state = Path(folder), Path(folder) / "state"
ends, end = os.pipe()
if (child := os.fork()) == 0:  # Yama lets nobody but root read the memory of what is no child of his
    os.close(end)
    os.read(ends, 1)  # until the probe has ended
    os._exit(0)
confine(role, load_settings(Path(config)))

def in_a_thread(act):
    failed = []
    def run():
        try: act()
        except OSError as error: failed.append(error)
    thread = threading.Thread(target=run)
    thread.start(); thread.join()
    if failed: raise failed[0]

def cat(path):
    if subprocess.run(["/bin/cat", path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
        raise PermissionError

def put(path):
    for _ in range(2):  # the second takes the place of the first
        part = state / "store/parts/three.part"
        part.write_bytes(b"")
        part.rename(path)
    path.unlink()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(folder)
    os.close(folder)

ATTEMPTS = {
    "read a model": lambda: (folder / "models/chest/manifest.json").read_bytes(),
    "read an image": lambda: (state / "store/instances/00/one.dcm").read_bytes(),
    "write an image": lambda: (state / "store/instances/two.dcm").write_bytes(b""),
    "add an image": lambda: put(state / "store/instances/00/three.dcm"),
    "read a result": lambda: (state / "store/objects/one.dcm").read_bytes(),
    "write a result": lambda: (state / "store/objects/two.dcm").write_bytes(b""),
    "read a stranger's file": lambda: (folder / "secret").read_bytes(),
    "read a stranger's file in a thread": lambda: in_a_thread((folder / "secret").read_bytes),
    "read a stranger's file by a program": lambda: cat(folder / "secret"),
    "write elsewhere": lambda: (folder / "left").write_bytes(b""),
    "change the program": lambda: Path("ROOT/node/left-behind").write_bytes(b""),
    "call the port of the node": lambda: socket.create_connection(("127.0.0.1", int(port))).close(),
    "call another port": lambda: socket.create_connection(("127.0.0.1", int(elsewhere))).close(),
    "send a datagram": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close(),
    "open a raw socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close(),
    "read another process": lambda: Path(f"/proc/{child}/mem").open("rb").close(),
    "read another's environment": lambda: Path(f"/proc/{os.getppid()}/environ").read_bytes(),
    "read another's map": lambda: Path(f"/proc/{os.getppid()}/maps").read_bytes(),
    "signal another process": lambda: os.kill(os.getppid(), 0),
    "use the ledger": lambda: (state / "ledger.sqlite").open("a+b").close(),
    "keep a temporary file": lambda: __import__("tempfile").NamedTemporaryFile().close(),
    "start a program": lambda: cat("/etc/hosts"),
}
done = {}
for name, attempt in ATTEMPTS.items():
    try:
        attempt()
        done[name] = True
    except OSError:
        done[name] = False
print(json.dumps(done))
""".replace("ROOT", str(ROOT))
ALL = ("use the ledger", "keep a temporary file", "start a program")
MAY = {
    "receive": {"read an image", "write an image", "add an image"},
    "analyse": {"read a model", "read an image", "read a result", "write a result"},
    "report": {"read an image", "read a result", "write a result"},
    "deliver": {
        "read an image",
        "read a result",
        "call the port of the node",
        "call another port",
        "send a datagram",
    },
    "web": {"read a model", "add an image", "read a result", "call the port of the node"},
    "keep": {
        "read an image",
        "write an image",
        "add an image",
        "read a result",
        "write a result",
        "call the port of the node",
        "call another port",
        "send a datagram",
    },
}
needs_kernel = pytest.mark.skipif(
    landlock.abi() < landlock.SCOPES_FROM or not seccomp.available(), reason="this kernel has no Landlock of ABI 6"
)


@pytest.fixture
def listeners() -> Iterator[list[int]]:
    """Two ports of this machine where somebody accepts."""
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    yield [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()


def attempted(folder: Path, ports: list[int], role: str, node: str = "") -> dict[str, bool]:
    state = folder / "state"
    for path in (
        "models/chest/manifest.json",
        "state/store/instances/00/one.dcm",
        "state/store/objects/one.dcm",
        "state/store/parts/one.part",
        "secret",
    ):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"kept")
    config = folder / "opentriage.toml"
    config.write_text(
        f'[node]\nstate_dir = "{state}"\n{node}\n[receive]\nport = {ports[0]}\n'
        f'[look]\nmodels_dir = "{folder / "models"}"\n'
    )
    command = [sys.executable, "-c", PROBE, role, str(config), str(folder), *map(str, ports)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    said: dict[str, bool] = json.loads(done.stdout.splitlines()[-1])
    (ROOT / "node" / "left-behind").unlink(missing_ok=True)
    return said


def may_nobody_be_read() -> bool:
    """Whether Yama keeps the memory even of one's own children from who is not root (ptrace_scope 2 and 3)."""
    scope = Path("/proc/sys/kernel/yama/ptrace_scope")
    return scope.is_file() and int(scope.read_text()) > 1


@needs_kernel
@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_what_it_needs_and_nothing_else(role: str, tmp_path: Path, listeners: list[int]) -> None:
    said = attempted(tmp_path, listeners, role)
    assert {name for name, worked in said.items() if worked} == {*ALL, *MAY[role]}


def test_without_confinement_every_attempt_works(tmp_path: Path, listeners: list[int]) -> None:
    said = attempted(tmp_path, listeners, "receive", "confine = false")
    not_ours = {"open a raw socket"} | ({"read another process"} if may_nobody_be_read() else set())
    assert [name for name, worked in said.items() if not worked and name not in not_ours] == []


ON_A_SERVER = """
import socket, sys
from pathlib import Path
from config import load_settings
from node.running.confine import confine
from node.wiring import open_ledger
role, config, elsewhere = sys.argv[1:]
settings = load_settings(Path(config))
confine(role, settings)
print(open_ledger(settings).installation_uid)
for attempt in (
    lambda: socket.create_connection(("127.0.0.1", int(elsewhere))),
    lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    lambda: socket.create_server(("127.0.0.1", 0)),
):
    try:
        attempt()
        print("worked")
    except OSError:
        print("refused")
"""


@needs_kernel
def test_what_decodes_reaches_a_ledger_on_a_server_and_nothing_else(tmp_path: Path, listeners: list[int]) -> None:
    with postgres_server(tmp_path) as url:
        config = tmp_path / "opentriage.toml"
        config.write_text(f'[node]\nstate_dir = "{tmp_path / "state"}"\ndatabase_url = "{url}"\n')
        command = [sys.executable, "-c", ON_A_SERVER, "analyse", str(config), str(listeners[1])]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    uid, *attempts = done.stdout.splitlines()[-4:]  # behind what was logged
    assert uid.startswith("2.25.")
    assert attempts == ["refused"] * 3


FORBIDDEN = """
import sys
from pathlib import Path
from config import load_settings
from inference import landlock, seccomp
from node.running import confine
from node.logging import configure
settings = load_settings(Path(sys.argv[1]))
configure("info", "receive")
def forbidden(*given, **named): raise landlock.CannotConfine(1, "forbidden by a container's profile")
seccomp.restrict = forbidden
if len(sys.argv) > 2: landlock.restrict = forbidden
confine.confine("receive", settings)
print("goes on")
"""


@pytest.mark.parametrize("more", [[], ["landlock too"]], ids=["seccomp", "landlock too"])
def test_where_the_kernel_refuses_the_work_goes_on_and_the_log_says_what_is_missing(
    tmp_path: Path, more: list[str]
) -> None:
    config = tmp_path / "opentriage.toml"
    config.write_text(f'[node]\nstate_dir = "{tmp_path / "state"}"\n')
    command = [sys.executable, "-c", FORBIDDEN, str(config), *more]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    [line] = [json.loads(line) for line in (done.stdout + done.stderr).splitlines() if "role_not_confined" in line]
    assert "goes on" in done.stdout
    assert any("sockets" in said for said in line["missing"])
    assert sum("forbidden by" in said for said in line["missing"]) == 1 + len(more)
