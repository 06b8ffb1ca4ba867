"""What keeps a role from listening is said in one sentence."""

import errno
import os
import socket
import subprocess
import sys

import pytest

from node.running.listening import CannotListen, cannot_listen, listen, reserve
from tests.support.peers import free_port
from tests.support.realdata import ROOT


def test_a_taken_port_is_named_and_a_free_one_is_had() -> None:
    port = free_port()  # not one that whoever connects meanwhile is given
    taken = f"^port {port} on 127.0.0.1 is taken: another program, or another"
    with socket.create_server(("127.0.0.1", port)), pytest.raises(CannotListen, match=taken):
        listen("127.0.0.1", port)
    listen("127.0.0.1", port).close()


def test_an_address_of_another_machine_is_not_ours_to_listen_on() -> None:
    with pytest.raises(CannotListen, match=r"^192\.0\.2\.1 is not an address of this machine$"):
        listen("192.0.2.1", 11112)  # RFC 5737: nobody's


def test_a_privileged_port_is_called_one() -> None:
    assert "below 1024" in str(cannot_listen("0.0.0.0", 104, OSError(errno.EACCES, "Permission denied")))


def test_a_reserved_address_is_nobody_elses_and_refuses_until_it_listens() -> None:
    with reserve("127.0.0.1", 0) as reserved:
        address = reserved.getsockname()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
        reserved.listen()
        socket.create_connection(address).close()
        with pytest.raises(CannotListen, match="is taken"):
            reserve(*address)


def test_a_socket_that_systemd_made_is_taken_by_the_process_that_it_was_made_for() -> None:
    """As sd_listen_fds(3) has it: descriptor 3, and LISTEN_PID of the process itself."""
    says = "from node.running.listening import handed_over as given; s = given(); print(s and s.getsockname()[1])"
    with socket.create_server(("127.0.0.1", 0)) as made:
        for count, found in (("1", str(made.getsockname()[1])), ("0", "None")):
            script = f"import os; os.dup2({made.fileno()}, 3); os.environ['LISTEN_PID'] = str(os.getpid()); {says}"
            done = subprocess.run(
                [sys.executable, "-c", script],
                cwd=ROOT,
                env={**os.environ, "LISTEN_FDS": count},
                pass_fds=(made.fileno(),),
                capture_output=True,
                text=True,
                check=True,
            )
            assert done.stdout.strip() == found
