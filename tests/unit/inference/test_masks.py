"""A mask finds its way back to the source image, whatever the shape of the model's input."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from inference.fit_input import resize
from inference.manifest import InputSpec
from inference.masks import keep_mask, source_mask
from ledger.store import Store


def _spec(fit: Literal["squash", "letterbox"], height: int = 64, width: int = 64) -> InputSpec:
    return InputSpec(height=height, width=width, fit=fit, window="header", percentiles=None, value_range=(0.0, 1.0))


def _disc(rows: int, columns: int, top: float, left: float, radius: float) -> NDArray[np.float32]:
    y, x = np.mgrid[0:rows, 0:columns]
    return np.asarray(np.hypot(y - top, x - left) <= radius, np.float32)


@pytest.mark.parametrize("fit", ["squash", "letterbox"])
@pytest.mark.parametrize("shape", [(256, 256), (240, 160), (128, 300), (64, 64), (63, 65)])
def test_what_went_into_the_input_comes_back_in_place(shape: tuple[int, int], fit: Any) -> None:
    source = _disc(*shape, shape[0] * 0.3, shape[1] * 0.7, min(shape) * 0.2)
    spec = _spec(fit)
    back = source_mask(resize(source, spec.height, spec.width, fit), spec, shape, 0.5)
    assert back.shape == shape
    both, either = np.logical_and(back, source).sum(), np.logical_or(back, source).sum()
    assert both / either > 0.93


def test_the_padding_of_a_letterbox_is_not_of_the_image() -> None:
    probability = np.ones((64, 64), np.float32)
    probability[16:48] = 0.0  # 32 of 64 rows hold the image
    assert not source_mask(probability, _spec("letterbox"), (128, 256), 0.5).any()


def test_the_threshold_is_reached_by_equality() -> None:
    probability = np.full((64, 64), 0.3, np.float32)
    assert source_mask(probability, _spec("squash"), (64, 64), 0.3).all()
    assert not source_mask(probability, _spec("squash"), (64, 64), 0.31).any()


def test_a_mask_is_kept_as_black_and_white(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", fsync=lambda descriptor: None)
    store.prepare()
    marked = _disc(40, 30, 10, 20, 5) > 0
    kept = keep_mask("tumour", marked, store)
    assert kept.pixels == marked.sum()
    with Image.open(store.path(kept.path)) as picture:
        assert picture.mode == "L"
        assert np.array_equal(np.asarray(picture), marked * 255)
    assert keep_mask("tumour", marked, None).path == ""
