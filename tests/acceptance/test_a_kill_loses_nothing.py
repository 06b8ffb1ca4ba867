"""SIGKILL of any process at any moment loses nothing that was acknowledged and sends nothing under two UIDs."""

import random
import threading
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from node.trying.sending import NoAssociation, Peer, Sent, send_files
from tests.support.chests import bright, dark, save
from tests.support.running import RunningNode, StoreScp
from tests.support.waiting import wait_until

STUDIES = 24
ROLES = ("receive", "analyse", "report", "deliver", "receive", "analyse")


class Modality(threading.Thread):
    """Sends each file until it is acknowledged, as modalities do."""

    def __init__(self, files: list[Path], port: int) -> None:
        super().__init__(daemon=True)
        self._files = files
        self._peer = Peer("OPENTRIAGE", "127.0.0.1", port)
        self.acknowledged: set[str] = set()

    def run(self) -> None:
        for path in self._files:
            while path.stem not in self.acknowledged:
                try:
                    send_files([path], self._peer, self._note)
                except NoAssociation:
                    threading.Event().wait(0.2)

    def _note(self, sent: Sent) -> None:
        if sent.status == 0:
            self.acknowledged.add(sent.path.stem)


def killed(node: RunningNode, role: str, rng: random.Random, modality: Modality) -> None:
    """Kill the role once another few instances were acknowledged, so that kills fall into work."""
    goal = min(STUDIES, len(modality.acknowledged) + rng.randint(1, 4))
    wait_until(lambda: len(modality.acknowledged) >= goal, 120)
    node.kill_role(role)


@pytest.mark.timeout(600)
def test_kills_under_load_lose_nothing_and_send_nothing_under_two_uids(start_node: Any, tmp_path: Path) -> None:
    rng = random.Random(20261120)
    images = [bright() if number % 2 else dark() for number in range(STUDIES)]
    files = [save(image, tmp_path / "in") for image in images]
    with StoreScp(tmp_path / "pacs") as pacs:
        node = start_node(("PACS", pacs.port))
        modality = Modality(files, node.port)
        modality.start()
        for role in rng.sample(ROLES, len(ROLES)):
            killed(node, role, rng, modality)
        node.kill()  # the supervisor itself: its children follow, a new one puts things in order
        node.start()
        modality.join(200)
        assert modality.acknowledged == {path.stem for path in files}
        node.wait_idle(200)
        entries = {entry.study_instance_uid: entry for entry in node.ledger.worklist()}
        got = [dcmread(path, stop_before_pixels=True) for path in pacs.files()]
    assert node.ledger.parked() == []
    assert {uid: entries[uid].priority for uid in entries} == {
        str(image.StudyInstanceUID): "HIGH" if number % 2 else "LOW" for number, image in enumerate(images)
    }
    sent: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for ds in got:
        sent[ds.StudyInstanceUID, ds.SOPClassUID, ds.get("CompletionFlag", "")].add(ds.SOPInstanceUID)
    assert all(len(uids) == 1 for uids in sent.values())
    flagged, unflagged = 4, 1  # both reports, the picture and the key objects; the text report
    final = [key for key in sent if key[2] != "PARTIAL"]  # provisional ones went before, unless a kill came before them
    assert len(final) == STUDIES // 2 * (flagged + unflagged)
    lost = [line for line in node.logged() if line["event"] == "lost_acknowledged_instance"]
    assert lost == []
