"""The display picture is for people: small enough, whole, and as bright as the image."""

import numpy as np
import pytest
from PIL import Image

from inference.decode_child import _display


@pytest.mark.parametrize(
    ("shape", "side", "expected"),
    [((3000, 2500), 1024, (1024, 853)), ((1100, 500), 1024, (1024, 465)), ((100, 90), 1024, (100, 90))],
)
def test_a_display_picture_is_as_large_as_was_asked_and_looks_like_the_image(
    shape: tuple[int, int], side: int, expected: tuple[int, int]
) -> None:
    y, x = np.mgrid[0 : 1 : shape[0] * 1j, 0 : 1 : shape[1] * 1j]
    picture = ((np.sin(9 * x) * np.cos(7 * y) + 1) / 2).astype(np.float32)
    shown = _display(picture, side)
    assert (shown.shape, shown.dtype) == (expected, np.uint8)
    plain = Image.fromarray(picture).resize(expected[::-1], Image.Resampling.BOX)
    assert np.abs(shown - np.asarray(plain) * 255.0).max() < 4.0
