"""Studies of different patients, interleaved on one and on many associations: each result is its own patient's.

The long form: OPENTRIAGE_STUDIES=1000.
"""

import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from node.trying.sending import NoAssociation, Peer, Sent, send_files
from tests.support.chests import bright, dark, save
from tests.support.patients import WHOSE, verdict
from tests.support.running import RunningNode
from tests.support.sink import Sink
from tests.support.waiting import wait_until

STUDIES = int(os.environ.get("OPENTRIAGE_STUDIES", "100"))
ASSOCIATIONS = 8
FLAGGED_EVERY = 10  # the others get a text report only


def image(number: int, **changes: Any) -> Dataset:
    """A study of patient `number`, whom nobody else resembles."""
    make = bright if number % FLAGGED_EVERY == 0 else dark
    whose = {
        "PatientID": f"P{number:05d}",
        "PatientName": f"Patient{number:05d}^Invented",
        "PatientBirthDate": f"{2018 + number % 5}{1 + number % 12:02d}{1 + number % 28:02d}",
        "PatientSex": "FMO"[number % 3],
        "AccessionNumber": f"A{number:05d}",
    }
    return make(**(whose | changes))


def second(of: Dataset, number: int, **changes: Any) -> Dataset:
    """Another image of the same study, as dark as the first is."""
    return image(number, StudyInstanceUID=of.StudyInstanceUID, **changes)


def interleaved(first: Sequence[Dataset], then: Sequence[Dataset]) -> list[Dataset]:
    """A1 B1 A2 B2 for each pair of patients."""
    order: list[Dataset] = []
    for start in range(0, len(first), 2):
        order += [*first[start : start + 2], *then[start : start + 2]]
    return order


def send(node: RunningNode, paths: Sequence[Path]) -> None:
    """On one association, in order; what was not acknowledged, because the machine is busy, is sent again."""
    left = list(paths)
    while left:
        sent: list[Sent] = []
        with suppress(NoAssociation):
            send_files(left, Peer("OPENTRIAGE", "127.0.0.1", node.port), sent.append)
        acknowledged = {one.path for one in sent if one.status == 0}
        left = [path for path in left if path not in acknowledged]


def send_on_many(node: RunningNode, paths: Sequence[Path]) -> None:
    """Neighbours, and so both patients of a pair, go out at once on different associations."""
    threads = [
        threading.Thread(target=send, args=(node, paths[number::ASSOCIATIONS])) for number in range(ASSOCIATIONS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def destination(port: int) -> str:
    return f'[[destinations]]\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {port}\nproof = []\n'


@pytest.mark.timeout(7200)
def test_each_result_is_its_own_patients_and_a_conflict_is_held(start_node: Any, tmp_path: Path) -> None:
    images = [image(number) for number in range(STUDIES)]
    on_one = STUDIES // 5
    pairs = [second(ds, number) for number, ds in enumerate(images[:on_one]) if number % FLAGGED_EVERY]
    paired = [ds for number, ds in enumerate(images[:on_one]) if number % FLAGGED_EVERY]
    rest = [ds for number, ds in enumerate(images) if number >= on_one or number % FLAGGED_EVERY == 0]

    # The same SOP instance again with other bytes; two patients in one study; one SOP Instance UID for two patients.
    corrected = second(images[1], 1, SOPInstanceUID=images[1].SOPInstanceUID, ViewPosition="AP")
    torn = [image(STUDIES + 1), image(STUDIES + 1)]
    torn[1].StudyInstanceUID, torn[1].PatientID = torn[0].StudyInstanceUID, "P99999"
    torn[1].PatientName = "Else^Someone"
    namesake = image(STUDIES + 2, SOPInstanceUID=images[3].SOPInstanceUID)
    for ds in (corrected, *torn, namesake):
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID

    def saved(some: Sequence[Dataset], folder: str) -> list[Path]:
        return [save(ds, tmp_path / folder) for ds in some]

    with Sink() as sink:
        node = start_node(extra=destination(sink.port), complete_after_s=10.0)
        send(node, saved(interleaved(paired, pairs), "one"))
        send_on_many(node, saved(rest, "many"))
        send(node, [*saved([corrected], "again"), *saved(torn, "torn"), *saved([namesake], "namesake")])
        wait_until(lambda: len(node.ledger.worklist(include_hidden=True)) == STUDIES + 2, 120)
        held = str(torn[0].StudyInstanceUID)

        def settled() -> bool:
            """Nothing is left to do, but for the report of the study that is held."""
            entry = node.entry(held)
            return node.left() == (1 if entry is not None and entry.hold else 0)

        wait_until(settled, 300 + 5 * STUDIES, 2.0)
        sent_in = [*images, *pairs, corrected, *torn, namesake]
        stored = {heard.sop_instance_uid: heard.read() for heard in sink.stored()}
        found = verdict(sent_in, stored.values())
        print(f"\n{STUDIES} studies, pairs on one association and the rest on {ASSOCIATIONS}: {found}")
        counts = node.ledger.counts()
        print(f"{len(sink.stored())} arrivals, stopped {counts['stopped']}, held 1")
        assert found.is_clean, found
        entry = node.entry(held)
        assert entry is not None
        assert "name different patients" in entry.hold
        assert found.answered == found.studies - 1  # every study but the one that is held
        assert held not in {str(ds.StudyInstanceUID) for ds in stored.values()}
        assert counts["stopped"]["wrong_patient"] == 0
        assert node.ledger.parked() == []
        assert all(len(hashes) == 1 for hashes in sink.holds().values())
        assert [line["died"] for line in node.logged() if line["event"] == "role_died"] == []


def test_the_verdict_finds_a_patient_or_a_reference_of_somebody_else() -> None:
    """The control: results that were exchanged do not pass."""
    one, other = image(1), image(2)
    right = Dataset()
    for keyword in (*WHOSE, "StudyInstanceUID"):
        setattr(right, keyword, one[keyword].value)
    right.SOPInstanceUID = "2.25.1"
    reference = Dataset()
    reference.ReferencedSOPInstanceUID = one.SOPInstanceUID
    right.SourceImageSequence = [reference]
    assert verdict([one, other], [right]).is_clean
    reference.ReferencedSOPInstanceUID = other.SOPInstanceUID
    assert verdict([one, other], [right]).wrong_reference == 1
    reference.ReferencedSOPInstanceUID = one.SOPInstanceUID
    right.PatientID = other.PatientID
    assert verdict([one, other], [right]).wrong_patient == 1
    right.StudyInstanceUID = "2.25.404"
    assert verdict([one, other], [right]).unknown_study == 1
