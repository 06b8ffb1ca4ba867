"""Whatever hospitals and test suites produce: it is refused on the wire or ends in a status, and nothing dies of it."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ledger.records import Stage
from node.files import walk
from node.trying.sending import Peer, Sent, send_files
from tests.support.realdata import need_data


@pytest.mark.timeout(600)
def test_every_real_file_is_refused_or_ends_in_a_status_with_its_reason(start_node: Any, tmp_path: Path) -> None:
    files = list(walk([need_data("dicom")]))
    node = start_node(triage_max_age_h=24.0 * 365 * 300)
    sent: list[Sent] = []
    send_files(files, Peer("OPENTRIAGE", "127.0.0.1", node.port), sent.append)
    assert len(sent) == len(files)
    taken = [one for one in sent if one.status == 0]
    assert len(taken) > 350, Counter(one.text for one in sent)
    assert all(one.text for one in sent if one.status != 0)
    node.wait_idle(400)
    assert node.ledger.parked() == []
    seen = Counter()
    for entry in node.ledger.worklist(include_hidden=True):
        for item in node.ledger.study_instances(entry.study_instance_uid):
            for result in item.results:
                seen[result.status.value] += 1
                assert result.status == "analysed" or result.reason
                assert result.status != "failed", (item.instance.sop_instance_uid, result.reason)
    counts = node.ledger.counts()
    analysed = counts["jobs"].get(f"{Stage.ANALYSE}:succeeded", 0)
    assert sum(seen.values()) >= analysed == counts["instances"]["analyse"]
    assert [line["died"] for line in node.logged() if line["event"] == "role_died"] == []
    assert node.healthy()["reasons"] == []
