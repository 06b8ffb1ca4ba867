"""Proof of delivery from archives that other people wrote: DCMTK's dcmqrscp and Orthanc."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.uid import generate_uid

from config.settings import DeliverSettings, Destination
from ledger.delivery_records import Proof
from scp.receiver import Receiver
from sr_writer.study_count import Listed, listed
from tests.support.dcmqrscp import QueryArchive
from tests.support.dx import make_dx, write
from tests.support.orthanc import AE_TITLE, Orthanc
from tests.support.peers import free_port
from tests.support.proving import STUDY, Delivering

TO_STORE_S = 1.0  # from a delivery to the first question about it: what an archive still stores would be missed


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Delivering]:
    made = Delivering(tmp_path / "node")
    yield made
    made.close()


def test_dcmqrscp_knows_no_commitment_and_lists_what_it_holds(node: Delivering, tmp_path: Path) -> None:
    with QueryArchive(tmp_path / "dcmqrscp") as archive:
        node.begin(archive.destination())
        objects = node.all_are(Proof.FOUND)
        assert len(archive.files()) == 3
    assert {one.proof_text for one in objects} == {"archive lists it (C-FIND)."}


def test_what_dcmqrscp_lost_is_sent_again(node: Delivering, tmp_path: Path) -> None:
    with QueryArchive(tmp_path / "dcmqrscp") as archive:
        settings = node.deliver(archive.destination(), prove_after_s=TO_STORE_S)
        files = archive.files()
        assert len(files) == 3
        (archive.store / "index.dat").unlink()
        for file in files:
            file.unlink()
        node.run_prover(settings)
        node.all_are(Proof.FOUND)
        assert len(archive.files()) == 3
    assert len(node.events("proof_missing")) == 3


def _orthanc(orthanc: Orthanc, **changes: object) -> Destination:
    values = {"name": "archive", "ae_title": AE_TITLE, "host": "127.0.0.1", "port": orthanc.port, **changes}
    return Destination.model_validate(values)


def test_orthanc_commits_on_an_association_of_its_own(node: Delivering, tmp_path: Path) -> None:
    with Orthanc(tmp_path / "orthanc", modalities=[("OPENTRIAGE", node.port)]) as orthanc:
        settings = node.settings(_orthanc(orthanc), commitment_wait_s=0.5)
        receiver = Receiver(settings, node.ledger)
        receiver.start()
        try:
            node.begin(settings.destinations[0], commitment_wait_s=0.5)
            objects = node.all_are(Proof.COMMITTED)
            assert len(orthanc.find("Instance", StudyInstanceUID=STUDY)) == 3
        finally:
            receiver.stop(0.0)
    assert "Storage Commitment" in objects[0].proof_text
    assert len(node.events("commitment_answered")) == 1


def test_what_orthanc_lost_before_it_committed_is_sent_again(node: Delivering, tmp_path: Path) -> None:
    with Orthanc(tmp_path / "orthanc", modalities=[("OPENTRIAGE", node.port)]) as orthanc:
        settings = node.settings(_orthanc(orthanc), commitment_wait_s=0.5, prove_after_s=TO_STORE_S)
        receiver = Receiver(settings, node.ledger)
        receiver.start()
        try:
            node.deliver(settings.destinations[0], commitment_wait_s=0.5, prove_after_s=TO_STORE_S)
            stored = orthanc.find("Instance")
            assert len(stored) == 3
            orthanc.delete(f"/instances/{stored[0]['ID']}")
            node.run_prover(settings)
            node.all_are(Proof.COMMITTED)
            assert len(orthanc.find("Instance", StudyInstanceUID=STUDY)) == 3
        finally:
            receiver.stop(0.0)
    assert len(node.events("proof_missing")) == 1


def test_orthanc_says_how_many_instances_of_a_study_it_has(tmp_path: Path) -> None:
    title = "OPENTRIAGE"
    with Orthanc(tmp_path / "orthanc", modalities=[(title, free_port())]) as orthanc:
        study, image, report = generate_uid(), generate_uid(), generate_uid()
        for series, modality, count in ((image, "DX", 2), (report, "SR", 1)):
            for _ in range(count):
                uid = generate_uid()
                changes = {"StudyInstanceUID": study, "SeriesInstanceUID": series, "SOPInstanceUID": uid}
                orthanc.put(write(make_dx(**changes, Modality=modality), tmp_path / f"{uid}.dcm"))
        destination = _orthanc(orthanc, calling_ae_title=title)
        assert listed(destination, DeliverSettings(), study, here=3) == Listed(3)
        found = listed(destination, DeliverSettings(), study, here=2)
        assert {(one.series_instance_uid, one.modality, one.instances) for one in found.series} == {
            (image, "DX", 2),
            (report, "SR", 1),
        }
        assert listed(destination, DeliverSettings(), generate_uid(), here=0) == Listed(0)


def test_orthanc_lists_what_it_holds_over_qido(node: Delivering, tmp_path: Path) -> None:
    with Orthanc(tmp_path / "orthanc", plugins=["DicomWeb"]) as orthanc:
        node.begin(_orthanc(orthanc, proof=("qido",), qido_url=f"{orthanc.url}/dicom-web"))
        objects = node.all_are(Proof.FOUND)
        assert {one.proof_text for one in objects} == {"archive lists it (QIDO-RS)."}


def test_what_orthanc_lost_is_missed_over_qido_and_sent_again(node: Delivering, tmp_path: Path) -> None:
    with Orthanc(tmp_path / "orthanc", plugins=["DicomWeb"]) as orthanc:
        destination = _orthanc(orthanc, proof=("qido",), qido_url=f"{orthanc.url}/dicom-web/")
        settings = node.deliver(destination, prove_after_s=TO_STORE_S)
        assert len(orthanc.find("Instance")) == 3
        [study] = orthanc.find("Study")
        orthanc.delete(f"/studies/{study['ID']}")
        node.run_prover(settings)
        node.all_are(Proof.FOUND)
        assert len(orthanc.find("Instance")) == 3
    assert len(node.events("proof_missing")) == 3


def test_an_archive_without_dicomweb_there_is_asked_in_the_next_way(node: Delivering, tmp_path: Path) -> None:
    with Orthanc(tmp_path / "orthanc", modalities=[("OPENTRIAGE", free_port())]) as orthanc:
        node.begin(_orthanc(orthanc, proof=("qido", "find"), qido_url=f"{orthanc.url}/dicom-web"))
        objects = node.all_are(Proof.FOUND)
    assert {one.proof_text for one in objects} == {"archive lists it (C-FIND)."}
