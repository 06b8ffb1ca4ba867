"""pydicom converts Pixel Representation while it converts a sequence beside it; garbage there once ended the look."""

import io
import warnings

import pytest
from pydicom import dcmread

from inference.body_parts import SiteTables
from inference.header import read_header
from tests.support.dx import make_dx

PIXEL_REPRESENTATION = 0x00280103


@pytest.mark.parametrize(("vr", "value"), [("SQ", b"\0"), ("US", b"\0")])
def test_a_broken_pixel_representation_does_not_hide_the_view(vr: str, value: bytes) -> None:
    buffer = io.BytesIO()
    make_dx().save_as(buffer, enforce_file_format=True)
    buffer.seek(0)
    ds = dcmread(buffer)
    element = ds.get_item(PIXEL_REPRESENTATION)
    assert element is not None
    ds[PIXEL_REPRESENTATION] = element._replace(VR=vr, value=value, length=len(value))  # type: ignore[union-attr]
    del ds.ViewPosition  # so that the view is asked of a sequence
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        facts = read_header(ds, SiteTables({"CHEST": ("chest",)}, ("pa",), ("lat",)))
    assert facts.modality == "DX"
