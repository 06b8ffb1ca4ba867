"""Where a slice lies in the patient, from a stored header (PS3.3 C.7.6.2), and which slices form one stack."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from inference.elements import UNREADABLE, MalformedElement, decimals, integer, text, unsigned

ANGLE = 0.01  # direction cosines that differ by less are of one orientation
SAME_POSITION_MM = 0.05  # slices nearer than this along the normal lie at one position
SAME_SPACING_MM = 0.001
KEYWORDS = [
    "SpecificCharacterSet",
    "FrameOfReferenceUID",
    "Rows",
    "Columns",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "PixelSpacing",
    "SpacingBetweenSlices",
    "SliceThickness",
    "AcquisitionNumber",
    "InstanceNumber",
]


@dataclass(frozen=True)
class Geometry:
    """Of one slice, in mm of the frame of reference; None or empty where the header does not say it.

    orientation: direction cosines of the rows, then of the columns. pixel_spacing: between rows, between columns.
    thickness: what a slice stands for when it is the only one.
    """

    frame_of_reference_uid: str = ""
    rows: int = 0
    columns: int = 0
    orientation: tuple[float, ...] | None = None
    position: tuple[float, ...] | None = None
    pixel_spacing: tuple[float, float] | None = None
    thickness: float | None = None
    number: tuple[int, int] = (0, 0)  # acquisition, instance

    @property
    def placed(self) -> bool:
        return self.orientation is not None and self.position is not None

    @property
    def normal(self) -> NDArray[np.float64]:
        """(3,): along which slices are stacked."""
        assert self.orientation is not None
        return np.cross(self.orientation[:3], self.orientation[3:])

    def along(self, normal: NDArray[np.float64]) -> float:
        """mm from the origin along `normal`."""
        assert self.position is not None
        return float(np.dot(self.position, normal))

    def stacks_with(self, other: "Geometry") -> bool:
        """Same frame of reference, size, spacing and orientation."""
        same = (self.frame_of_reference_uid, self.rows, self.columns) == (
            other.frame_of_reference_uid,
            other.rows,
            other.columns,
        )
        return same and _near(self.pixel_spacing, other.pixel_spacing) and self._parallel(other)

    def _parallel(self, other: "Geometry") -> bool:
        assert self.orientation is not None
        assert other.orientation is not None
        return bool(np.allclose(self.orientation, other.orientation, atol=ANGLE))


def read_geometry(path: Path) -> Geometry:
    """From a stored instance, up to the pixels. What is missing, malformed or impossible is None."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's warnings quote values
        try:
            ds = dcmread(path, stop_before_pixels=True, specific_tags=list(KEYWORDS), force=True)
        except (*UNREADABLE, InvalidDicomError):
            return Geometry()
        return _geometry(ds)


def _geometry(ds: Dataset) -> Geometry:
    return Geometry(
        frame_of_reference_uid=text(ds, "FrameOfReferenceUID", ("UI",)),
        rows=_whole(ds, "Rows"),
        columns=_whole(ds, "Columns"),
        orientation=_orientation(ds),
        position=_numbers(ds, "ImagePositionPatient", 3),
        pixel_spacing=_spacing(ds),
        thickness=_length(ds, "SpacingBetweenSlices") or _length(ds, "SliceThickness"),
        number=(_ordinal(ds, "AcquisitionNumber"), _ordinal(ds, "InstanceNumber")),
    )


def _orientation(ds: Dataset) -> tuple[float, ...] | None:
    cosines = _numbers(ds, "ImageOrientationPatient", 6)
    if cosines is None:
        return None
    rows, columns = np.array(cosines[:3]), np.array(cosines[3:])
    unit = np.allclose([np.linalg.norm(rows), np.linalg.norm(columns)], 1.0, atol=ANGLE)
    return cosines if unit and abs(float(rows @ columns)) < ANGLE else None


def _spacing(ds: Dataset) -> tuple[float, float] | None:
    values = _numbers(ds, "PixelSpacing", 2)
    return (values[0], values[1]) if values and min(values) > 0.0 else None


def _length(ds: Dataset, keyword: str) -> float | None:
    values = _numbers(ds, keyword, 1)
    return abs(values[0]) or None if values else None  # some write a negative distance for the direction


def _numbers(ds: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    try:
        values = decimals(ds, keyword)
    except MalformedElement:
        return None
    return tuple(values) if values and len(values) == count else None


def _whole(ds: Dataset, keyword: str) -> int:
    try:
        return unsigned(ds, keyword) or 0
    except MalformedElement:
        return 0


def _ordinal(ds: Dataset, keyword: str) -> int:
    try:
        return integer(ds, keyword) or 0
    except MalformedElement:
        return 0


def _near(one: tuple[float, float] | None, other: tuple[float, float] | None) -> bool:
    if one is None or other is None:
        return one is other
    return bool(np.allclose(one, other, rtol=0.0, atol=SAME_SPACING_MM))


def stacks(slices: Sequence[Geometry]) -> list[list[int]]:
    """Indices of the slices that have a place, as stacks: each in order along its normal, no position twice.

    A position that was acquired twice gives two stacks: the first acquisition of each position, then the second.
    """
    families: list[list[int]] = []
    for i, geometry in enumerate(slices):
        if not geometry.placed:
            continue
        home = next((family for family in families if slices[family[0]].stacks_with(geometry)), None)
        if home is None:
            families.append([i])
        else:
            home.append(i)
    return [stack for family in families for stack in _by_position(family, slices)]


def _by_position(family: Sequence[int], slices: Sequence[Geometry]) -> list[list[int]]:
    normal = slices[family[0]].normal
    ordered = sorted(family, key=lambda i: (slices[i].along(normal), slices[i].number))
    layers: list[list[int]] = []
    positions: list[list[int]] = []
    for i in ordered:
        here = slices[i].along(normal)
        if positions and here - slices[positions[-1][0]].along(normal) < SAME_POSITION_MM:
            positions[-1].append(i)
        else:
            positions.append([i])
    for same in positions:
        for layer, i in enumerate(sorted(same, key=lambda i: slices[i].number)):
            if layer == len(layers):
                layers.append([])
            layers[layer].append(i)
    return layers


def slice_distance(stack: Sequence[Geometry]) -> float | None:
    """mm between neighbours of an ordered stack: the median; of a single slice what its header says."""
    if len(stack) == 1:
        return stack[0].thickness
    normal = stack[0].normal
    return float(np.median(np.diff([geometry.along(normal) for geometry in stack]))) if stack else None
