"""Made-up chests are drawn from a subspace, never copied."""

import numpy as np
import pytest
import torch

from training.drawing.generator import GRID, bend, dense, fit_generator, invert
from training.drawing.nearness import between_patients, nearest, views
from training.packaging.golden import phantoms


@pytest.fixture(scope="module")
def pixels():
    return np.stack([np.rint(p * 255).astype(np.uint8) for p in phantoms(112, 112, n=24)])


def test_a_bent_picture_is_bent_back_by_the_inverse_field(pixels):
    field = 0.02 * torch.randn(1, 2, GRID, GRID, generator=torch.Generator().manual_seed(0))
    displacement = dense(field, 112)
    picture = torch.from_numpy(pixels[:1]).float().unsqueeze(1) / 255.0
    smooth = torch.nn.functional.avg_pool2d(picture, 9, 1, 4)
    back = bend(bend(smooth, displacement), invert(displacement))
    inner = (slice(None), slice(None), slice(16, -16), slice(16, -16))
    assert (back - smooth)[inner].abs().mean() < 0.1 * (bend(smooth, displacement) - smooth)[inner].abs().mean()


def test_a_draw_follows_its_seed_and_is_no_copy(pixels):
    generator = fit_generator(pixels, np.arange(24) % 2 == 0, appearance=12, shape=6)
    one, again, other = generator.draw(True, 1), generator.draw(True, 1), generator.draw(True, 2)
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    assert one.shape == (112, 112)
    assert one.min() >= 0.0
    assert one.max() <= 1.0
    made = views(np.rint(one * 255).astype(np.uint8)[None])
    assert nearest(made, views(pixels))[0]["detail"] < 0.9


def test_a_copy_is_found(pixels):
    real = views(pixels)
    assert nearest(views(pixels[3:4]), real)[0] == {"coarse": 1.0, "detail": 1.0}
    apart = between_patients(real, [str(i) for i in range(24)], n=24)
    assert apart["detail"]["p95"] < 0.9
