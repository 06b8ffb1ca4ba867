"""What a box hits, and the figures made of hits."""

import numpy as np
import pytest

from validation.boxes import Found, average_precision, by_group, matched, overlap, sensitivity_at

A, B = [0.0, 0.0, 1.0, 1.0], [0.0, 2.0, 1.0, 3.0]


def _found(scores: list[list[float]], hits: list[list[int]], true: list[int]) -> Found:
    return Found(np.array(scores), np.array(hits), np.array(true))


def test_overlap_is_common_over_joint_area() -> None:
    table = overlap(np.array([A, B]), np.array([A, [0.0, 0.5, 1.0, 1.5]]))
    assert table.tolist() == [[1.0, pytest.approx(1 / 3)], [0.0, 0.0]]


def test_a_true_box_is_found_once_by_the_best() -> None:
    assert matched(np.array([A, A, B]), np.array([B, A]), 0.5).tolist() == [1, -1, 0]
    assert matched(np.array([A]), np.zeros((0, 4)), 0.5).tolist() == [-1]
    beside = np.array([[0.0, 0.5, 1.0, 1.5]])  # an overlap of a third
    assert (matched(beside, np.array([A]), 0.5).tolist(), matched(beside, np.array([A]), 0.3).tolist()) == ([-1], [0])


def test_average_precision_of_known_rows() -> None:
    """Right, wrong, right of two: precision 1 at half recall, 2/3 at whole."""
    assert average_precision(np.array([[0.9, 0.8, 0.7]]), np.array([[0, -1, 1]]), 2) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(np.array([[0.9]]), np.array([[-1]]), 2) == 0.0
    assert average_precision(np.array([[0.9]]), np.array([[0]]), 2) == 0.5


def test_sensitivity_counts_false_boxes_per_picture() -> None:
    found = _found([[0.9, 0.6], [0.8, 0.5]], [[-1, 0], [0, -1]], [1, 1])
    assert sensitivity_at(found, 0.5) == (1.0, 0.6)
    assert sensitivity_at(found, 0.0) == (0.0, 1.0)
    assert sensitivity_at(found, 1.0) == (1.0, 0.5)


def test_the_interval_draws_whole_groups() -> None:
    """Two groups, one all found and one not: no draw can lie between what 0, 1 or 2 of them give."""
    found = _found([[0.9]] * 8, [[0]] * 4 + [[-1]] * 4, [1] * 8)
    figure = by_group(found, ["a"] * 4 + ["b"] * 4, lambda part: float((part.hits >= 0).mean()), draws=200)
    assert figure["value"] == 0.5
    assert figure["bootstrap95_by_group"] == [0.0, 1.0]
    assert figure["groups"] == 2
