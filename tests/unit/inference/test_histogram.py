"""What the histogram options do to a picture, against a slow and plain reading of the same definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.histogram import BINS, CLIP, Histogram, Picture, clahe, equalise, normalised
from inference.manifest import InputSpec
from inference.tensor import to_tensor


def picture(rows: int = 53, columns: int = 61, seed: int = 1) -> Picture:
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0.2, 0.6, columns, dtype=np.float32) * np.ones((rows, 1), np.float32)
    return np.asarray(np.clip(ramp + rng.normal(0, 0.05, (rows, columns)), 0, 1), np.float32)


def plain_clahe(image: Picture, clip: float, tiles: int) -> Picture:
    """Pixel by pixel and tile by tile, with loops."""
    rows, columns = image.shape
    high, wide = -(-rows // tiles), -(-columns // tiles)
    levels = np.rint(image * 255).astype(int)
    whole = np.pad(levels, ((0, high * tiles - rows), (0, wide * tiles - columns)), "symmetric")
    limit = max(1.0, clip * high * wide / BINS)
    tables = np.empty((tiles, tiles, BINS))
    for i in range(tiles):
        for j in range(tiles):
            counts = [0.0] * BINS
            for level in whole[i * high : (i + 1) * high, j * wide : (j + 1) * wide].ravel():
                counts[level] += 1.0
            excess = sum(max(0.0, count - limit) for count in counts)
            tables[i, j] = np.cumsum([min(count, limit) + excess / BINS for count in counts]) / (high * wide)
    out = np.empty(image.shape, np.float32)
    for y in range(rows):
        for x in range(columns):
            v = min(max((y + 0.5) / high - 0.5, 0), tiles - 1)
            u = min(max((x + 0.5) / wide - 0.5, 0), tiles - 1)
            i, j = int(v), int(u)
            k, m = min(i + 1, tiles - 1), min(j + 1, tiles - 1)
            level = levels[y, x]
            top = tables[i, j, level] * (1 - (u - j)) + tables[i, m, level] * (u - j)
            bottom = tables[k, j, level] * (1 - (u - j)) + tables[k, m, level] * (u - j)
            out[y, x] = top * (1 - (v - i)) + bottom * (v - i)
    return out


@pytest.mark.parametrize("shape", [(48, 48), (53, 61), (16, 90)])
@pytest.mark.parametrize("clip", [1.0, CLIP, 40.0])
def test_clahe_is_what_its_definition_says(shape: tuple[int, int], clip: float) -> None:
    image = picture(*shape)
    assert np.allclose(clahe(image, clip, 8), plain_clahe(image, clip, 8), atol=1e-5)


def test_clahe_lifts_the_contrast_of_a_dull_corner_and_equalise_that_of_the_whole() -> None:
    image = picture(96, 96)
    image[:24, :24] = 0.5 + 0.02 * (image[:24, :24] - image[:24, :24].mean())
    assert clahe(image)[:24, :24].std() > 2 * image[:24, :24].std()
    flat = equalise(image)
    assert (flat.min(), flat.max()) == (0.0, 1.0)
    assert abs(float(np.median(flat)) - 0.5) < 0.02


@settings(max_examples=40, deadline=None)
@given(st.integers(16, 64), st.integers(16, 64), st.floats(0.0, 1.0), st.floats(0.0, 0.5), st.integers(0, 999))
def test_any_picture_stays_a_picture(rows: int, columns: int, grey: float, spread: float, seed: int) -> None:
    noise = np.random.default_rng(seed).normal(0.0, 1.0, (rows, columns))
    image = np.asarray(np.clip(grey + spread * noise, 0.0, 1.0), np.float32)
    for histogram in ("none", "equalise", "clahe"):
        out = normalised(image, (0.5, 99.5), histogram)
        assert (out.shape, out.dtype) == (image.shape, np.float32)
        assert 0.0 <= out.min() <= out.max() <= 1.0


def test_equalising_never_turns_the_order_of_greys_around() -> None:
    image = picture()
    order = np.argsort(image.ravel(), kind="stable")
    assert (np.diff(equalise(image).ravel()[order]) >= 0).all()


@pytest.mark.parametrize("histogram", ["none", "equalise", "clahe"])
def test_a_manifests_histogram_reaches_the_tensor_after_the_percentiles(histogram: Histogram) -> None:
    spec = InputSpec(
        height=53, width=61, fit="squash", window="header", percentiles=(1.0, 99.0), histogram=histogram,
        value_range=(-1.0, 1.0),
    )  # fmt: skip
    expected = normalised(picture(), (1.0, 99.0), histogram) * 2.0 - 1.0
    assert np.allclose(to_tensor(picture(), spec)[0], expected)
    assert (histogram == "none") == np.allclose(expected, normalised(picture(), (1.0, 99.0)) * 2.0 - 1.0)
