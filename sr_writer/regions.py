"""Where on an image: closed polylines, as image regions (TID 1410) of measurement groups."""

import numpy as np
from highdicom.sr import ContentSequence, CoordinatesForMeasurement, ImageRegion, SourceImageForRegion
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ledger.records import InstanceRef
from sr_writer.dress import ANY_IMAGE, Report, image_reference

Box = tuple[float, float, float, float]  # (top, left, bottom, right) in source pixels, bottom and right exclusive


def rectangle(box: Box) -> NDArray[np.float64]:
    """A box as a closed polyline: (5, 2) of (column, row). Pixel k reaches from k to k + 1 (PS3.3 C.18.6)."""
    top, left, bottom, right = box
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom], [left, top]], np.float64)


def outline(rows: int, columns: int) -> NDArray[np.float64]:
    """The whole image as a closed polyline: (5, 2) of (column, row) in pixels, PS3.3 C.18.6.1.1 coordinates."""
    return rectangle((0.0, 0.0, float(max(rows - 1, 1)), float(max(columns - 1, 1))))


def region(points: NDArray[np.float64], image: InstanceRef) -> ImageRegion:
    """points: (5, 2) of (column, row). `finish_region` names the image as it is."""
    return ImageRegion("POLYLINE", points, SourceImageForRegion(ANY_IMAGE, image.sop_instance_uid))


def finish_region(group: Dataset, image: InstanceRef, report: Report) -> None:
    """Name the image of a group's region by its class and frame, and put the same coordinates under the group's first
    number, where it has one: OHIF makes a measurement of that."""
    found = next(item for item in group.ContentSequence if item.ValueType == "SCOORD")
    regions = [found]
    number = next((item for item in group.ContentSequence if item.ValueType == "NUM"), None)
    if number is not None:
        points = np.asarray(found.GraphicData, dtype=np.float64).reshape(-1, 2)
        source = SourceImageForRegion(ANY_IMAGE, image.sop_instance_uid)
        regions.append(CoordinatesForMeasurement("POLYLINE", points, source))
        number.ContentSequence = ContentSequence(regions[1:])
    for item in regions:
        item.ContentSequence[0].ReferencedSOPSequence = [image_reference(report, image)]
