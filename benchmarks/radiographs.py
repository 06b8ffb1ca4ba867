"""Synthetic chests without end: the demonstration's samples with new UIDs and patients, changed in their bytes."""

import itertools
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite

from node.trying.demo import fresh_samples
from tests.support.rawscu import RawScu, p_data

FRAGMENT = 65_536
LARGER = 4  # 640 x 512 becomes 2560 x 2048: 10 MB
_STUDY, _SERIES, _IMAGE = (f"2.25.{digit}{'0' * 38}" for digit in (1, 2, 3))
_PATIENT = "BENCH-0000000000"


@dataclass(frozen=True)
class Radiograph:
    """A study of one image. data: its data set in its transfer syntax."""

    study_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    sop_instance_uid: str
    data: bytes


class Radiographs:
    """An endless supply, the samples in turn. opaque: the share that has an opacity, which raises the study."""

    def __init__(self, folder: Path, large: bool = False, opaque: float = 0.5) -> None:
        self._templates = [_template(dcmread(path), large) for path in fresh_samples(folder)]
        self._opaque = opaque
        self._number = itertools.count()

    @property
    def size_bytes(self) -> int:
        """Of one data set, in the mean."""
        return sum(len(data) for _, _, data in self._templates) // len(self._templates)

    def next(self) -> Radiograph:
        """A study that was never there before. Safe from several threads."""
        number = next(self._number)
        before, there = int(number * self._opaque), int((number + 1) * self._opaque)
        some = self._templates[there > before :: 2]  # the samples with an even number have one
        sop_class, syntax, data = some[(before if there > before else number - before) % len(some)]
        study, series, image = (f"2.25.{digit}{uuid.uuid4().int % 10**38:038d}" for digit in (1, 2, 3))
        for old, new in ((_STUDY, study), (_SERIES, series), (_IMAGE, image), (_PATIENT, f"BENCH-{number:010d}")):
            data = data.replace(old.encode(), new.encode())
        return Radiograph(study, sop_class, syntax, image, data)


def _template(ds: Dataset, large: bool) -> tuple[str, str, bytes]:
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID, ds.PatientID = _STUDY, _SERIES, _IMAGE, _PATIENT
    if large:
        ds.decompress()
        pixels = ds.pixel_array.repeat(LARGER, 0).repeat(LARGER, 1)
        ds.Rows, ds.Columns = pixels.shape
        ds.ImagerPixelSpacing = [side / LARGER for side in ds.ImagerPixelSpacing]
        ds.PixelData = np.ascontiguousarray(pixels).tobytes()
    buffer = BytesIO()
    dcmwrite(buffer, ds, enforce_file_format=True)
    return str(ds.SOPClassUID), str(ds.file_meta.TransferSyntaxUID), _without_meta(buffer.getvalue())


def _without_meta(content: bytes) -> bytes:
    """Everything after group 0002 of a Part 10 file."""
    assert content[128:132] == b"DICM"
    return content[132 + 12 + int.from_bytes(content[140:144], "little") :]


def store(port: int, image: Radiograph) -> float:
    """On an association of its own. time.monotonic() when the last byte was handed to the system. Raises OSError."""
    contexts: Sequence[tuple[str, Sequence[str]]] = ((image.sop_class_uid, (image.transfer_syntax_uid,)),)
    with RawScu(("127.0.0.1", port), contexts, calling="BENCH") as scu:
        scu.send_command(image.sop_class_uid, image.sop_instance_uid)
        for start in range(0, len(image.data), FRAGMENT):
            last = 2 if start + FRAGMENT >= len(image.data) else 0
            scu.socket.sendall(p_data(1, last, image.data[start : start + FRAGMENT]))
        at = time.monotonic()
        if (status := scu.read_response().status) != 0:
            raise OSError(f"answered 0x{status:04X}")
        scu.release()
    return at
