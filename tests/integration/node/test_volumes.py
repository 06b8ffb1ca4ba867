"""Slices become a reported volume in the roles themselves: look, then say, over one ledger."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ComprehensiveSRStorage

from config.adapters import Hl7Adapter, WebhookAdapter
from config.settings import Destination, LookSettings, Settings
from inference.analyser import Analyser
from inference.package import load_packages
from ledger.completion import Completion
from ledger.ledger import Ledger
from ledger.records import Stage
from ledger.store import Store
from ledger.views import ObjectDelivery
from node.commands.worklist import as_object
from node.roles.analyse import Look
from node.roles.report import Say
from node.running.lease import LeaseKeeper
from node.telling.triage_list import finding_words
from sr_writer.adapters.hl7 import encode
from sr_writer.adapters.telling import Message
from sr_writer.adapters.webhook import document
from sr_writer.source import read_header
from tests.support.chests import bright
from tests.support.findings import keep
from tests.support.mr import head, make_mr
from tests.support.packages import write_package
from tests.support.records import received
from tests.support.slice_packages import write_slice_package

MARKED = (False, True, True, True, False)


class Node:
    """One ledger, one analyser, one writer; each role is called once for all that waits."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        write_package(folder / "models")
        write_slice_package(folder / "models")
        pacs = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=1)  # nothing is sent here: what waits
        self.settings = Settings(
            look=LookSettings(models_dir=folder / "models", threads=1), destinations=(pacs,), **settings
        )
        store = Store(folder / "store", fsync=lambda descriptor: None)
        store.prepare()
        self.ledger = Ledger.open(f"sqlite:///{folder / 'ledger.db'}", store)
        self.analyser = Analyser(self.settings, load_packages(self.settings.look), store, children=1)

    def receive(self, *series: Dataset) -> None:
        for ds in series:
            ref = keep(ds, self.ledger.store)
            known = {
                "sop_class_uid": ref.sop_class_uid,
                "sop_instance_uid": ref.sop_instance_uid,
                "series_instance_uid": ref.series_instance_uid,
                "modality": ref.modality,
                "sha256": ref.sha256,
                "path": ref.path,
            }
            self.ledger.admit(received(ref.study_instance_uid, **known), Completion(0.0))

    def work(self) -> None:
        """Everything that waits: first looks, then reports."""
        self._role(Stage.ANALYSE, Look(self.ledger, self.analyser).work)
        self._role(Stage.REPORT, Say(self.ledger, self.settings).work)

    def _role(self, stage: Stage, work: Any) -> None:
        while jobs := self.ledger.claim(stage, "test", 8, 60.0):
            with LeaseKeeper(self.ledger, jobs, 60.0) as keeper:
                work(jobs, keeper)

    def made(self, study_uid: str) -> list[ObjectDelivery]:
        """In the order made; of the measurement report, which is made in three classes, the preferred one."""
        every = self.ledger.study_objects(study_uid)
        return [one for one in every if one.kind != "measurement_sr" or one.sop_class_uid == ComprehensiveSRStorage]

    def kinds(self, study_uid: str) -> list[str]:
        return [made.kind for made in self.made(study_uid)]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path)
    yield node
    node.analyser.close()
    node.ledger.close()


def test_a_head_is_measured_and_raises_nothing(node: Node) -> None:
    series = make_mr([head(marked) for marked in MARKED])
    node.receive(*series)
    node.work()
    study = str(series[0].StudyInstanceUID)
    assert node.kinds(study) == ["measurement_sr", "text_sr", "segmentation"]
    (entry,) = node.ledger.worklist()
    assert entry.priority == "LOW"
    assert entry.findings == ()
    assert entry.slices_marked == (("tumour", 3, 5),)
    assert "tumour marked in 3 of 5 slices, no alarm" in finding_words(entry)


def test_an_unmarked_head_gets_a_text_and_nothing_else(node: Node) -> None:
    series = make_mr([head(False)] * 4)
    node.receive(*series)
    node.work()
    assert node.kinds(str(series[0].StudyInstanceUID)) == ["text_sr"]
    (entry,) = node.ledger.worklist()
    assert "no flagged finding" in finding_words(entry)


def test_slices_that_come_later_revise_the_report(node: Node) -> None:
    series = make_mr([head(marked) for marked in (*MARKED[:3], True, True, False)])
    study = str(series[0].StudyInstanceUID)
    node.receive(*series[:3])
    node.work()
    node.receive(*series[3:])
    node.work()
    assert node.kinds(study) == ["measurement_sr", "text_sr", "segmentation"] * 2
    made = node.made(study)
    latest = dcmread(node.ledger.store.path(made[3].path))
    (before,) = latest.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert before.ReferencedSOPInstanceUID == made[0].sop_instance_uid
    assert dcmread(node.ledger.store.path(made[5].path)).NumberOfFrames == 4
    node.receive(series[0])  # the same bytes again
    node.work()
    assert len(node.kinds(study)) == 6


def test_a_flagged_chest_leaves_at_once_and_with_the_head_when_that_is_complete(node: Node) -> None:
    chest = bright()
    node.receive(chest, *make_mr([head(marked) for marked in MARKED], StudyInstanceUID=chest.StudyInstanceUID))
    node.work()
    flagged = ["measurement_sr", "text_sr", "secondary_capture", "key_objects"]
    assert node.kinds(str(chest.StudyInstanceUID)) == [*flagged, *flagged, "segmentation"]  # provisional, then final
    (entry,) = node.ledger.worklist()
    assert entry.priority == "HIGH"
    assert [finding.label for finding in entry.findings] == ["pneumonia"]
    assert finding_words(entry).startswith("pneumonia ")
    assert "tumour marked in 3 of 5 slices, no alarm" in finding_words(entry)


AIR = np.full((256, 256), 40, np.uint16)  # one grey: an end slice that the model is not asked about


def _told(node: Node, adapter: str) -> Message:
    (job,) = node.ledger.claim(Stage.NOTIFY, "test", 1, 60.0, adapter)
    notice = node.ledger.notice(job)
    assert notice.source
    header = read_header(node.ledger.store.path(notice.source.path), notice.study_instance_uid)
    return Message(notice, adapter, node.ledger.installation_uid, header)


@pytest.fixture
def telling(tmp_path: Path) -> Iterator[Node]:
    """A node that tells everything to a RIS and a webhook."""
    (tmp_path / "secret").write_bytes(b"0123456789abcdef")
    ris = {"kind": "hl7", "name": "ris", "host": "127.0.0.1", "port": 1, "on": "all"}
    hook = {"kind": "webhook", "name": "hook", "url": "http://127.0.0.1:1/", "on": "all"}
    node = Node(tmp_path, adapters=[ris, hook | {"secret_file": str(tmp_path / "secret")}])
    yield node
    node.analyser.close()
    node.ledger.close()


def test_a_refused_end_slice_is_a_remark_wherever_the_volume_is_told(telling: Node) -> None:
    series = make_mr([AIR, *[head(marked) for marked in (*MARKED, *[False] * 14)]])
    study = str(series[0].StudyInstanceUID)
    telling.receive(*series)
    telling.work()
    assert telling.kinds(study) == ["measurement_sr", "text_sr", "segmentation"]
    (entry,) = telling.ledger.worklist()
    assert (entry.priority, entry.report_priority, entry.not_assessed_reason) == ("LOW", "LOW", "")
    marked, refused = (
        "tumour marked in 3 of 20 slices",
        "1 of 20 slices could not be assessed: The image shows one grey",
    )
    assert finding_words(entry) == f"{marked}, no alarm; {refused} only"
    listed = as_object(entry)
    assert listed["slices_marked"] == [{"label": "tumour", "slices": 3, "of": 20}]
    assert listed["slices_refused"] == [{"reason": "The image shows one grey only.", "slices": 1, "of": 20}]
    adapters = {one.key: one for one in telling.settings.adapters}
    ris, hook = adapters["ris"], adapters["hook"]
    assert isinstance(ris, Hl7Adapter)
    assert isinstance(hook, WebhookAdapter)
    said = encode(_told(telling, "ris"), ris).decode()
    assert "|NOT_RAISED^" in said
    assert f"T{marked[1:]}, no alarm; {refused} only. AI triage output" in said
    assert "could not assess this study" not in said
    posted = document(_told(telling, "hook"), hook)
    assert posted["priority"] == "NOT_RAISED"
    assert (posted["slices_marked"], posted["slices_refused"]) == (listed["slices_marked"], listed["slices_refused"])
    story = [event.text for event in telling.ledger.events(study) if event.name == "priority_lowered"]
    assert len(story) == 1  # while slices came nobody could know that the others would be assessed


def test_a_series_of_which_more_than_a_tenth_was_refused_is_not_assessed(telling: Node) -> None:
    series = make_mr([AIR, *[head(marked) for marked in MARKED]])
    telling.receive(*series)
    telling.work()
    (entry,) = telling.ledger.worklist()
    assert (entry.priority, entry.report_priority) == ("NOT_ASSESSED", "NOT_ASSESSED")
    why = "1 of 6 slices could not be assessed: The image shows one grey only"
    assert entry.not_assessed_reason == why
    assert finding_words(entry) == f"tumour marked in 3 of 6 slices, no alarm; {why}"
    said = telling.made(str(series[0].StudyInstanceUID))[-2:]
    assert [
        dcmread(telling.ledger.store.path(one.path)).SeriesDescription for one in said if one.kind == "text_sr"
    ] == ["AI result: not assessed (research)"]
    assert _told(telling, "ris").status == "NOT_ASSESSED"


def test_a_provisional_report_tells_adapters_nothing_of_slices(telling: Node) -> None:
    chest = bright()
    telling.receive(chest, *make_mr([AIR, *[head(True)] * 9], StudyInstanceUID=chest.StudyInstanceUID))
    telling.work()
    notices = [_told(telling, "ris").notice for _ in range(2)]
    assert [one.report_kind for one in notices] == ["provisional", "final"]
    assert [one.slices_marked for one in notices] == [(), (("tumour", 9, 10),)]
    assert [len(one.slices_refused) for one in notices] == [0, 1]
