"""The Secondary Capture as a PNG, for people without a DICOM viewer at hand."""

from pathlib import Path

from PIL import Image
from pydicom.dataset import Dataset


def write_overlay(secondary_capture: Dataset, path: Path) -> None:
    """secondary_capture: RGB, (rows, columns, 3) of 8 bit."""
    Image.fromarray(secondary_capture.pixel_array).save(path)
