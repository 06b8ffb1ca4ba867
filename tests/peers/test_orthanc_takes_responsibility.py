"""A whole node: one process delivers and asks, another hears the archive's answer, a third shows it."""

from pathlib import Path
from typing import Any

import httpx
from typer.testing import CliRunner

from ledger.delivery_records import Proof
from node.cli import app
from tests.support.chests import bright, save
from tests.support.orthanc import AE_TITLE, Orthanc
from tests.support.running import storescu
from tests.support.waiting import wait_until


def test_orthanc_commits_to_every_result_and_a_person_can_see_it(start_node: Any, tmp_path: Path) -> None:
    image = bright()
    path = save(image, tmp_path / "in")
    with Orthanc(tmp_path / "orthanc") as orthanc:
        node = start_node((AE_TITLE, orthanc.port))
        orthanc.knows("OPENTRIAGE", node.port)
        assert storescu(node.port, path).returncode == 0
        node.wait_idle(180)
        objects = node.ledger.study_objects(str(image.StudyInstanceUID))
        page = httpx.get(f"http://127.0.0.1:{node.web_port}/", timeout=60).text
        metrics = httpx.get(f"http://127.0.0.1:{node.web_port}/metrics", timeout=60).text
        config = str(node.config)
        told = CliRunner().invoke(app, ["explain", str(image.StudyInstanceUID), "--config", config]).output
        held = wait_until(lambda: orthanc.find("Instance", StudyInstanceUID=str(image.StudyInstanceUID)), 60)
    assert objects
    assert {one.proof for one in objects if one.tries} == {Proof.COMMITTED}
    assert {one["MainDicomTags"]["SOPInstanceUID"] for one in held} == {o.sop_instance_uid for o in objects if o.tries}
    assert f"<span>{AE_TITLE} proven</span>" in page
    assert 'proof="committed"' in metrics
    assert "It took responsibility for it" in " ".join(told.split())
