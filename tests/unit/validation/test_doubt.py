"""Risk against coverage: who doubts its errors first wins."""

import numpy as np
import pytest

from validation.doubt import aurc, best_aurc, compare, risk_at_coverage


def test_the_curve_is_the_error_share_of_the_least_doubtful():
    wrong = np.array([False, False, True, False, True])
    doubt = np.array([0.1, 0.4, 0.9, 0.2, 0.3])
    assert risk_at_coverage(wrong, doubt) == pytest.approx([0, 0, 1 / 3, 1 / 4, 2 / 5])
    assert aurc(wrong, doubt) == pytest.approx(np.mean([0, 0, 1 / 3, 1 / 4, 2 / 5]))


def test_equal_doubts_share_their_risk_whatever_the_order_in_the_file():
    wrong = np.array([True, False, False, False])
    assert risk_at_coverage(wrong, np.zeros(4)) == pytest.approx([0.25] * 4)
    assert risk_at_coverage(wrong[::-1], np.zeros(4)) == pytest.approx([0.25] * 4)


def test_nobody_beats_the_order_that_doubts_exactly_the_errors():
    rng = np.random.default_rng(0)
    wrong = rng.random(200) < 0.2
    assert all(best_aurc(wrong) <= aurc(wrong, rng.random(200)) for _ in range(50))


def test_the_winner_is_who_knew_and_the_interval_says_by_how_much():
    rng = np.random.default_rng(1)
    n = 400
    wrong = rng.random(n) < 0.15
    doubts = {
        "sd": wrong * 1.5 + rng.normal(size=n),
        "max_probability": wrong * 0.3 + rng.normal(size=n),
        "distance": rng.normal(size=n),
    }
    found = compare(wrong, doubts, [str(i) for i in range(n)], draws=300)
    assert found["winner"] == "sd"
    low, high = found["orderings"]["sd"]["less_plain_bootstrap95"]
    assert low < high < 0
    assert "less_plain_bootstrap95" not in found["orderings"]["max_probability"]
    low, high = found["orderings"]["sd"]["bootstrap95_by_patient"]
    assert low < found["orderings"]["sd"]["aurc"] < high
    assert found["aurc_of_a_perfect_order"] < found["orderings"]["sd"]["aurc"] < found["risk_at_full_coverage"]


def test_a_tie_goes_to_the_plain_figure_and_no_error_names_no_winner():
    doubt = np.array([0.1, 0.2, 0.3, 0.4])
    doubts = {"entropy": doubt, "max_probability": doubt}
    groups = list("abcd")
    assert compare(np.array([False, False, True, False]), doubts, groups, draws=20)["winner"] == "max_probability"
    assert compare(np.zeros(4, bool), doubts, groups, draws=20)["winner"] is None
