"""The main job: a study goes in by C-STORE, a structured report with a priority comes back to PACS."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from tests.support.chests import bright, dark, save
from tests.support.running import StoreScp, storescu
from tests.support.waiting import wait_until

MEASUREMENTS, TEXT = "1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.5.1.4.1.1.88.11"


@pytest.mark.timeout(600)
def test_flagged_and_unflagged_studies_come_back_to_storescp(start_node: Any, tmp_path: Path) -> None:
    flagged, unflagged = bright(), dark()
    with StoreScp(tmp_path / "pacs") as pacs:
        node = start_node(("PACS", pacs.port), heartbeat_s=10.0)  # which nobody is to notice
        sent = storescu(node.port, save(flagged, tmp_path / "in"), save(unflagged, tmp_path / "in"))
        assert sent.returncode == 0, sent.stderr
        wait_until(lambda: len(pacs.files()) >= 5, 120)
        wait_until(lambda: any(pulse.last for pulse in node.ledger.pulses()), 120)
        node.wait_idle(150)  # between one heartbeat and the next
        got = [dcmread(path) for path in pacs.files()]
    by_study = {
        uid: [ds for ds in got if uid == ds.StudyInstanceUID]
        for uid in (flagged.StudyInstanceUID, unflagged.StudyInstanceUID)
    }
    assert {ds.Modality for ds in by_study[flagged.StudyInstanceUID]} == {"SR", "OT", "KO"}
    assert Counter(ds.Modality for ds in by_study[unflagged.StudyInstanceUID]) == {"SR": 1}
    assert {ds.PatientID for ds in got} == {flagged.PatientID}
    entries = node.ledger.worklist()
    assert [entry.study_instance_uid for entry in entries] == [flagged.StudyInstanceUID, unflagged.StudyInstanceUID]
    assert [entry.priority for entry in entries] == ["HIGH", "LOW"]
    assert all(entry.deliveries == ((f"PACS@127.0.0.1:{pacs.port}", "delivered"),) for entry in entries)
    page = node.get("/").text
    assert page.index(flagged.StudyInstanceUID) < page.index(unflagged.StudyInstanceUID)
    assert "Invented" not in page
    assert "TEST-0001" not in page
    assert node.healthy()["reasons"] == []
    metrics = node.get("/metrics").text
    assert "opentriage_instances_received_total 2.0" in metrics
    assert "opentriage_instances_drift 0.0" in metrics
    assert 'opentriage_receive_instances_total{outcome="new",status="0x0000"} 2.0' in metrics
    assert "opentriage_heartbeat_age_seconds{" in metrics
    assert node.stop() == 0
