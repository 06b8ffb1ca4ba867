"""What decodes has no network, writes nothing and reads nothing but images: a real child, a real kernel."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from config.settings import LookSettings
from inference import landlock, seccomp
from inference.errors import CannotLook
from inference.sandbox import DecodeChild
from tests.support.dx import make_dx, write
from tests.support.realdata import ROOT

PROBE = """
import json, os, socket, subprocess, sys
from inference import jail
below, secret = sys.argv[1], sys.argv[2]
jail.close([below], "/bin/true")
ATTEMPTS = {
    "a Unix socket": lambda: socket.socket(socket.AF_UNIX).close(),
    "a TCP socket": lambda: socket.socket(socket.AF_INET).close(),
    "a datagram socket": lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close(),
    "a netlink socket": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close(),
    "another file": lambda: open(secret).close(),
    "a new file among the images": lambda: open(below + "/new", "w").close(),
    "a signal to the parent": lambda: os.kill(os.getppid(), 0),
    "another program": lambda: subprocess.run(["/bin/cat", "/dev/null"]),
    "its one program": lambda: subprocess.run(["/bin/true"], check=True),
    "an image": lambda: open(below + "/image").close(),
    "nothing": lambda: open("/dev/null", "r+").close(),
}
done = {}
for name, attempt in ATTEMPTS.items():
    try:
        attempt()
        done[name] = True
    except OSError:
        done[name] = False
print(json.dumps(done))
"""
needs_kernel = pytest.mark.skipif(
    landlock.abi() < landlock.SCOPES_FROM or not seccomp.available(), reason="this kernel has no Landlock of ABI 6"
)


@needs_kernel
def test_what_decodes_can_read_images_and_no_more(tmp_path: Path) -> None:
    below, secret = tmp_path / "images", tmp_path / "secret"
    below.mkdir()
    for path in (below / "image", secret):
        path.write_text("kept")
    command = [sys.executable, "-c", PROBE, str(below), str(secret)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert {name for name, worked in json.loads(done.stdout).items() if worked} == {
        "an image",
        "nothing",
        "its one program",
    }


@needs_kernel
def test_the_decode_child_is_confined_to_the_folders_that_it_is_given(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    inside, outside = write(make_dx(), tmp_path / "images" / "x.dcm"), write(make_dx(), tmp_path / "x.dcm")
    child = DecodeChild(LookSettings(), below=(inside.parent,))
    try:
        assert child.look(inside, None, None).rows == 256
        with pytest.raises(CannotLook, match="unreadable"):
            child.look(outside, None, None)
        said = Path(f"/proc/{child.pid}/status").read_text()
        assert "Seccomp:\t2" in said
        assert "NoNewPrivs:\t1" in said
    finally:
        child.close()
