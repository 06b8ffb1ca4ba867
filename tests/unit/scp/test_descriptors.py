"""A receiver with few file descriptors serves fewer, and still somebody."""

import pytest

from scp.network.descriptors import PER_ASSOCIATION, RESERVE_MIN, room_in


@pytest.mark.parametrize(
    ("limit", "associations"), [(16, 1), (64, 8), (128, 26), (192, 40), (256, 53), (512, 106), (1024, 277)]
)
def test_the_reserve_is_no_more_than_a_small_limit_bears(limit: int, associations: int) -> None:
    assert room_in(limit, 1000).associations == associations


@pytest.mark.parametrize("limit", range(64, 2048, 16))
def test_what_is_promised_is_there_and_something_is_kept_back(limit: int) -> None:
    associations, pending = room_in(limit, 1000)
    assert associations * PER_ASSOCIATION + pending + RESERVE_MIN <= limit


def test_no_more_than_wanted() -> None:
    assert room_in(1 << 30, 50).associations == 50
