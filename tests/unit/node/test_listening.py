"""What keeps a role from listening is said in one sentence."""

import errno
import socket

import pytest

from node.listening import CannotListen, cannot_listen, listen


def test_a_taken_port_is_named_and_a_free_one_is_had() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(CannotListen, match=f"^port {port} on 127.0.0.1 is taken: another program, or another"):
            listen("127.0.0.1", port)
    listen("127.0.0.1", port).close()


def test_an_address_of_another_machine_is_not_ours_to_listen_on() -> None:
    with pytest.raises(CannotListen, match=r"^192\.0\.2\.1 is not an address of this machine$"):
        listen("192.0.2.1", 11112)  # RFC 5737: nobody's


def test_a_privileged_port_is_called_one() -> None:
    assert "below 1024" in str(cannot_listen("0.0.0.0", 104, OSError(errno.EACCES, "Permission denied")))
