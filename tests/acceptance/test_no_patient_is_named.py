"""A patient's name, id and birth date leave the node only inside DICOM objects."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from tests.support.chests import bright, dark, save
from tests.support.dx import write
from tests.support.realdata import ROOT
from tests.support.running import StoreScp, storescu

NAME, ID, BORN = "SENTINELNAME", "SENTINELID", "19010203"
SENTINELS = (NAME, ID, BORN, "SENTINELVALUE")


def planted(ds: Dataset) -> Dataset:
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = f"{NAME}^Zoë", ID, BORN
    ds.AccessionNumber, ds.OtherPatientIDs = "SENTINELVALUE", f"{ID}2"
    return ds


def inputs(folder: Path) -> list[Path]:
    """Whole and broken, flagged and refused: each names its patient."""
    made = {"flagged": planted(bright()), "unflagged": planted(dark()), "old": planted(dark(StudyDate="20010101"))}
    made["adult"] = planted(bright())
    made["adult"].PatientAge = "044Y"
    made["ageless"] = planted(bright())
    made["ageless"].PatientAge = ""
    made["short"] = planted(bright())
    made["short"].PixelData = made["short"].PixelData[:1000]
    made["liar"] = planted(bright())
    made["liar"].Rows = 60000
    made["pixelless"] = planted(bright())
    del made["pixelless"].PixelData
    paths = [save(ds, folder / name) for name, ds in made.items()]
    bad_values = planted(bright())
    path = save(bad_values, folder / "values")
    content = path.read_bytes().replace(b"003Y", b"SENT").replace(b"2048", b"SENT")
    path.write_bytes(content)
    whole = write(planted(bright()), folder / "cut.dcm").read_bytes()
    (folder / "cut.dcm").write_bytes(whole[: len(whole) // 2])
    (folder / "tail.dcm").write_bytes(whole + b"SENTINELVALUE trailing")
    return [*paths, path, folder / "cut.dcm", folder / "tail.dcm"]


def opentriage(*arguments: object) -> str:
    """Both outputs of one command."""
    command = [sys.executable, "-m", "node.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False, cwd=ROOT)
    return done.stdout + done.stderr


@pytest.mark.timeout(600)
def test_a_planted_patient_is_in_no_log_metric_page_or_error(start_node: Any, tmp_path: Path) -> None:
    paths = inputs(tmp_path / "in")
    with StoreScp(tmp_path / "pacs") as pacs:
        node = start_node(("PACS", pacs.port))
        for path in paths:  # one association each: storescu stops at the first refusal
            storescu(node.port, path)
        said = {"send": opentriage("send", *paths, "--to", f"OPENTRIAGE@127.0.0.1:{node.port}")}
        node.wait_idle(150)
        said |= {name: node.get(name).text for name in ("/", "/metrics", "/healthz", "/none")}
        uids = [entry.study_instance_uid for entry in node.ledger.worklist(include_hidden=True)]
        assert len(uids) >= 7
        said["worklist"] = opentriage("worklist", "--json", "--hidden", "--config", node.config)
        said["explain"] = opentriage("explain", uids[0], "--config", node.config)
        said["release"] = opentriage("release", "--config", node.config)
        said["analyse"] = opentriage("analyse", "--json", *paths, "--out", tmp_path / "out", "--config", node.config)
        assert len([line for line in said["analyse"].splitlines() if line.startswith("{")]) == len(paths)
        assert any(NAME.encode() in path.read_bytes() for path in pacs.files())  # the reports do name the patient
        node.stop()
    said["log"] = node.log.read_text(errors="replace")
    assert "instance_looked_at" in said["log"]
    state = node.folder / "state"
    said |= {
        p.name: p.read_bytes().decode("latin-1")
        for p in [*state.glob("ledger.sqlite*"), *state.rglob("run/**/*")]
        if p.is_file()
    }
    assert [(place, word) for place, text in said.items() for word in SENTINELS if word in text] == []
