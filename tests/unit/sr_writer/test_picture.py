"""The picture colours only evidence, where it lies, and leaves the rest of the image as it is."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ledger.records import ActivationMap, TriagePriority
from sr_writer.picture import FULL_COLOUR_LOGITS, Picture, blend, draw, heat
from tests.support.findings import blob, finding


def _map(values: list[list[float]], box: tuple[float, float, float, float] = (0.0, 0.0, 100.0, 100.0)) -> ActivationMap:
    return ActivationMap(tuple(tuple(row) for row in values), box)


def _grey(side: int = 64) -> Image.Image:
    return Image.fromarray(np.tile(np.arange(side, dtype=np.uint8) * 3, (side, 1)))


def _drawn(priority: TriagePriority = TriagePriority.HIGH, mapped: bool = True) -> NDArray[np.uint8]:
    said = finding()
    return draw(_grey(), Picture(priority, (said,), said if mapped else None, (256, 256), ("small print",)))


def test_evidence_is_drawn_where_it_lies() -> None:
    strength = heat(_map([[0.0, 8.0], [0.0, 0.0]]), (100, 100), (200, 200))
    assert strength[:100, 100:].mean() > 4 * strength[:100, :100].mean()
    row, column = np.unravel_index(strength.argmax(), strength.shape)
    assert row < 100 <= column


def test_counter_evidence_is_not_coloured() -> None:
    assert heat(_map([[-5.0, -1.0], [0.0, -9.0]]), (100, 100), (50, 50)).max() == 0


def test_weak_evidence_stays_weak() -> None:
    weak = FULL_COLOUR_LOGITS / 4
    strength = heat(_map([[weak] * 3] * 3), (100, 100), (50, 50))
    assert 0 < strength.max() <= 64


def test_a_map_of_nonsense_colours_nothing() -> None:
    assert heat(_map([[float("nan")] * 2] * 2), (100, 100), (50, 50)).max() == 0


def test_a_letterboxed_map_is_cut_at_the_image() -> None:
    """The box reaches above and below a wide image; the middle rows of the grid are what shows."""
    values = [[9.0, 9.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
    strength = heat(_map(values, (-50.0, 0.0, 150.0, 200.0)), (100, 200), (100, 200))
    assert strength.shape == (100, 200)
    assert strength[50:].max() == 0


def test_a_map_that_lies_beside_the_image_colours_nothing() -> None:
    assert heat(_map([[9.0]], (200.0, 200.0, 300.0, 300.0)), (100, 100), (100, 100)).max() == 0


def test_without_evidence_the_image_is_untouched() -> None:
    grey = _grey()
    mixed = np.asarray(blend(grey, np.zeros((64, 64), dtype=np.uint8)))
    assert (mixed == np.asarray(grey)[..., None]).all()


def test_the_words_stand_beside_the_image_not_on_it() -> None:
    """Every pixel row of the image is grey when no map is drawn."""
    picture = _drawn(mapped=False)
    grey_rows = [(row[:, 0] == row[:, 1]).all() and (row[:, 1] == row[:, 2]).all() for row in picture]
    assert sum(grey_rows) >= 1024


def test_the_class_is_seen_by_colour_too() -> None:
    high, medium = _drawn(TriagePriority.HIGH)[2, 2], _drawn(TriagePriority.MEDIUM)[2, 2]
    assert high[0] > 150 > 60 > high[1]
    assert medium[0] > 200
    assert medium[1] > 140


def test_the_same_input_draws_the_same_pixels() -> None:
    assert (_drawn() == _drawn()).all()


def test_every_shape_of_image_is_drawn_whole() -> None:
    said = finding(activation=blob((-1.0, 0.0, 300.0, 40.0)))
    for size in ((300, 40), (40, 300), (1, 1), (3001, 17)):
        pixels = draw(
            Image.new("L", (size[1], size[0])), Picture(TriagePriority.HIGH, (said,), said, size, ("small print",))
        )
        assert pixels.dtype == np.uint8
        assert pixels.shape[1] >= 960
        assert pixels.shape[2] == 3


def test_a_missing_picture_leaves_a_placard() -> None:
    said = finding()
    pixels = draw(None, Picture(TriagePriority.MEDIUM, (said,), said, (256, 256), ()))
    assert pixels.shape[0] > 400


def test_what_was_found_in_a_letterboxs_padding_is_not_drawn() -> None:
    """A dark border may look to a model like what it looks for; it is no part of the image."""
    box = (-50.0, 0.0, 150.0, 200.0)  # of four rows of cells the outer two lie above and below the image
    strong = _map([[9.0] * 4, [0.0] * 4, [0.0] * 4, [9.0] * 4], box)
    assert heat(strong, (100, 200), (100, 200)).max() == 0
    both = heat(_map([[90.0] * 4, [0.0, 3.0, 0.0, 0.0], [0.0] * 4, [0.0] * 4], box), (100, 200), (100, 200))
    alone = heat(_map([[0.0] * 4, [0.0, 3.0, 0.0, 0.0], [0.0] * 4, [0.0] * 4], box), (100, 200), (100, 200))
    assert both.max() == 255, "nor does it make the evidence inside look weak"
    assert both.argmax() % 200 == alone.argmax() % 200
