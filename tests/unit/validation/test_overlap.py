"""Dice per patient is the Dice of all their slices laid together."""

import numpy as np
import pytest

from validation.overlap import by_patient, count, dice, joined, patient_dice


def masks(*fills: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """For each image: pixels marked by the model alone, by the person alone, and by both."""
    model, person = (np.zeros((len(fills), 4, 8), bool) for _ in range(2))
    for i, (one, other, both) in enumerate(fills):
        for mask, cells in (
            (model[i], list(range(both)) + list(range(10, 10 + one))),
            (person[i], list(range(both)) + list(range(20, 20 + other))),
        ):
            mask.ravel()[cells] = True
    return model, person


def test_dice_is_twice_the_common_share_and_nothing_on_nothing_is_no_figure():
    found = dice(count(*masks((0, 0, 5), (2, 2, 3), (3, 0, 0), (0, 0, 0))))
    assert found[:3] == pytest.approx([1.0, 0.6, 0.0])
    assert np.isnan(found[3])


def test_a_patients_slices_are_one_volume_not_a_mean_of_slices():
    counts = count(*masks((0, 0, 9), (1, 0, 0), (0, 4, 0)))
    names, volumes = by_patient(counts, ["b", "b", "a"])
    assert names == ("a", "b")
    assert dice(volumes) == pytest.approx([0.0, 18 / 19])
    found = patient_dice(counts, ["b", "b", "a"], draws=200)
    assert found["mean"] == pytest.approx((18 / 19) / 2, abs=1e-4)
    assert (found["patients"], found["empty"], found["images"], found["least"]) == (2, 0, 3, 0.0)


def test_a_patient_without_a_mark_is_counted_and_in_no_mean():
    found = patient_dice(count(*masks((0, 0, 4), (0, 0, 0))), ["a", "b"], draws=50)
    assert (found["mean"], found["patients"], found["empty"]) == (1.0, 1, 1)
    assert patient_dice(count(*masks((0, 0, 0))), ["a"])["mean"] is None


def test_batches_in_a_row_are_one_set():
    whole = count(*masks((1, 2, 3), (0, 1, 1), (2, 0, 6)))
    parts = joined([count(*masks((1, 2, 3))), count(*masks((0, 1, 1), (2, 0, 6)))])
    assert (parts.both == whole.both).all()
    assert (parts.model == whole.model).all()
    assert (parts.person == whole.person).all()


def test_masks_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match="do not lie over each other"):
        count(np.zeros((1, 4, 4), bool), np.zeros((1, 4, 5), bool))
