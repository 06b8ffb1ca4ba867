"""A modality may delete its images when the node has said so, whatever dies between its question and the answer."""

from typing import Any

import pytest

from tests.support.encoded import CT
from tests.support.modality import Modality, action
from tests.support.waiting import wait_until

A, B = "1.2.3.4", "1.2.3.5"


@pytest.mark.timeout(600)
def test_a_request_for_commitment_survives_who_took_it_and_who_tells_it(start_node: Any) -> None:
    ct = Modality("CT1")
    sender = f'[[commitment_requestors]]\nae_title = "CT1"\nhost = "127.0.0.1"\nport = {ct.port}\nretention_days = 30\n'
    node = start_node(extra=sender)
    address = ("127.0.0.1", node.port)
    ct.store(address, A, B)
    assert ct.ask(address, action([(CT, A), (CT, B)])) == 0x0000  # and it is away: nobody can answer it
    for role in ("receive", "deliver"):
        node.kill_role(role)
    with ct:
        wait_until(lambda: ct.heard, 120)
        wait_until(lambda: 'requestor="CT1",state="confirmed"} 1.0' in node.get("/metrics").text, 120)
    assert (ct.heard[0].event_type, ct.heard[0].committed, ct.heard[0].failed) == (1, (A, B), {})
    assert node.stop() == 0
