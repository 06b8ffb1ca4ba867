"""A small hospital for the viewers: a node, its results in two archives, and OHIF in front of each."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from node.trying.demo import fresh_samples
from node.trying.sending import Peer, Sent, send_files
from tests.support import ohif
from tests.support.chests import save
from tests.support.detectors import write_detector
from tests.support.dx import make_dx
from tests.support.mr import flair, head, make_mr, save_series
from tests.support.orthanc import AE_TITLE, Orthanc
from tests.support.realdata import ROOT, data_folder
from tests.support.running import RunningNode
from tests.support.slice_packages import write_slice_package
from tests.support.viewer_server import ViewerServer
from tests.support.waiting import wait_until

ROWS, COLUMNS = 256, 512
PATCH = (85, 140, 170, 225)  # top, left, bottom, right of what is planted in the limb
MARKED = (False, True, True, True, False)
LICENCE = "CC-BY-NC-SA-4.0"
PATIENT = "TCGA_CS_4944_20010208"  # 20 slices, a large tumour
EVERYTHING = 'key_objects = "high"\npresentation_state = true\nparametric_map = true\n'


@dataclass(frozen=True)
class Archive:
    """Orthanc and the address of the OHIF in front of it."""

    orthanc: Orthanc
    url: str

    def series_of(self, study_uid: str) -> dict[str, str]:
        """SeriesDescription: Modality."""
        found = (one["MainDicomTags"] for one in self.orthanc.find("Series", StudyInstanceUID=study_uid))
        return {tags.get("SeriesDescription", ""): tags["Modality"] for tags in found}

    def file(self, study_uid: str, modality: str) -> Dataset:
        """The one instance of this modality."""
        (one,) = self.orthanc.find("Instance", StudyInstanceUID=study_uid, Modality=modality)
        return dcmread(self.orthanc.file(one["ID"]))


@dataclass(frozen=True)
class Clinic:
    """viewer: the archive of profile "ohif"; archive: of "generic-pacs" with every object it can have.

    Study UIDs: a chest that is flagged and one that is not, a limb with a box, a head with a planted mask, and a real
    head, where the real images are.
    """

    viewer: Archive
    archive: Archive
    flagged: str
    unflagged: str
    limb: str
    head: str
    real: str | None

    @property
    def studies(self) -> dict[str, str]:
        """Every study by name; the real one only where there is one."""
        named = {"flagged": self.flagged, "unflagged": self.unflagged, "limb": self.limb, "head": self.head}
        return {**named, **({"real": self.real} if self.real else {})}


@contextmanager
def clinic(folder: Path) -> Iterator[Clinic]:
    """Everything is delivered when this yields; the node has stopped then."""
    dist = ohif.dist()
    with Orthanc(folder / "viewer", ["DicomWeb"]) as first, Orthanc(folder / "archive", ["DicomWeb"]) as second:
        studies = _studies(folder / "in")
        _triage(folder, [path for files in studies.values() for path in files], first, second)
        uids = {
            name: str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID) for name, files in studies.items()
        }
        with ViewerServer(dist, first.url) as viewer, ViewerServer(dist, second.url) as archive:
            real = uids.pop("real", None)
            yield Clinic(Archive(first, viewer.url), Archive(second, archive.url), real=real, **uids)


def limb() -> NDArray[np.uint16]:
    """Two long bones, drawn, and in one of them a bright square: (ROWS, COLUMNS), 0..4095."""
    y, x = np.mgrid[0.0:ROWS, 0.0:COLUMNS]
    soft = np.clip(1.0 - np.abs(y - 128.0) / (95.0 + 15.0 * x / COLUMNS), 0.0, 1.0) ** 0.5
    pixels = 150.0 + 550.0 * soft
    for middle, half in ((95.0, 20.0), (165.0, 15.0)):
        across = np.abs(y - middle - 6.0 * np.sin(x / 90.0)) / (half + 5.0 * np.cos(x / 80.0))
        pixels += 700.0 * np.clip(1.0 - across**4, 0.0, 1.0)
    top, left, bottom, right = PATCH
    pixels[top:bottom, left:right] = 4000.0
    return pixels.astype(np.uint16)


def _studies(folder: Path) -> dict[str, list[Path]]:
    chests = fresh_samples(folder / "chests")
    headers = {"AnatomicRegionSequence": None, "ViewCodeSequence": None, "StudyDescription": "Planted limb"}
    bones = make_dx(limb(), SeriesDescription="Limb", BodyPartExamined="EXTREMITY", **headers)
    planted = make_mr([head(marked) for marked in MARKED], SeriesDescription="AX planted", StudyDescription="Planted")
    studies = {
        "flagged": [chests[1]],
        "unflagged": [chests[0]],
        "limb": [save(bones, folder / "limb")],
        "head": save_series(planted, folder / "head"),
    }
    slices = _real_slices()
    if slices:
        series = flair(slices, BodyPartExamined="HEAD", PatientID="TEST-0003")
        studies["real"] = save_series(series, folder / "real")
    return studies


def _real_slices() -> list[Path]:
    images = data_folder() / "brain_flair" / "images"
    return sorted(images.glob(f"{PATIENT}_*.webp"), key=lambda path: int(path.stem.rpartition("_")[2]))


def _triage(folder: Path, files: Sequence[Path], viewer: Orthanc, archive: Orthanc) -> None:
    """The images to both archives, as a site has them, and to a node that reports to both."""
    for port in (viewer.port, archive.port):
        _send(files, Peer(AE_TITLE, "127.0.0.1", port))
    extra = (
        f'[look]\nmodels_dir = "{_models(folder / "models")}"\nthreads = 2\nprovider = "cpu"\n'
        f'accept_licences = ["{LICENCE}"]\n'
        '[report]\nlocalization = "box"\n'
        + _destination("viewer", viewer, 'profile = "ohif"\n')
        + _destination("archive", archive, f'profile = "generic-pacs"\n{EVERYTHING}')
    )
    with RunningNode(folder / "node", extra=extra, complete_after_s=2.0, triage_max_age_h=24.0) as node:
        _send(files, Peer("OPENTRIAGE", "127.0.0.1", node.port))
        studies = len({dcmread(path, stop_before_pixels=True).StudyInstanceUID for path in files})
        wait_until(lambda: _said(node, studies), 300, 0.5)


def _said(node: RunningNode, studies: int) -> bool:
    """Whether both archives have every report; the node may still be asking them for proof."""
    jobs = node.ledger.counts()["jobs"]
    doing = sum(count for key, count in jobs.items() if key.endswith((":queued", ":running")) and "prove" not in key)
    entries = node.ledger.worklist(include_hidden=True)
    there = sum([state for _, state in entry.deliveries] == ["delivered"] * 2 for entry in entries)
    return doing == 0 and there == studies


def _destination(name: str, orthanc: Orthanc, more: str) -> str:
    place = f'ae_title = "{AE_TITLE}"\nhost = "127.0.0.1"\nport = {orthanc.port}\n'
    return f'[[destinations]]\nname = "{name}"\n{place}flagged = "all"\nunflagged = "all"\n{more}'


def _models(folder: Path) -> Path:
    """Two packages as they are shipped, and two tiny ones that mark what is planted."""
    folder.mkdir()
    for name in ("chest-pneumonia", "brain-tumour-flair"):
        shutil.copytree(ROOT / "models" / name, folder / name)
    write_detector(folder)
    write_slice_package(folder)
    return folder


def _send(files: Sequence[Path], peer: Peer) -> None:
    sent: list[Sent] = []
    send_files(files, peer, sent.append)
    assert [one.status for one in sent] == [0] * len(files), sent
