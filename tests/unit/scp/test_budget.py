"""The bytes in flight stay within their budget, nobody waits for ever, and there is always one that goes on."""

import threading

import pytest

from scp.admission.budget import Budget
from scp.errors import StoreUnavailable
from tests.support.waiting import wait_until


def test_a_message_over_the_budget_waits_until_another_is_answered() -> None:
    budget = Budget(100, wait_s=30.0)
    first, second = budget.open(), budget.open()
    first.take(90)
    went_on = threading.Event()

    def write() -> None:
        second.take(20)
        went_on.set()

    thread = threading.Thread(target=write)
    thread.start()
    assert not went_on.wait(0.1)
    assert budget.used_bytes == 90
    first.give_back()
    thread.join(10)
    assert went_on.is_set()
    assert budget.used_bytes == 20


def test_the_oldest_message_goes_on_whatever_it_takes() -> None:
    budget = Budget(100, wait_s=0.0)
    first, second = budget.open(), budget.open()
    second.take(100)
    first.take(1000)
    assert budget.used_bytes == 1100


def test_who_becomes_the_oldest_goes_on() -> None:
    budget = Budget(100, wait_s=30.0)
    first, second = budget.open(), budget.open()
    first.take(1)
    thread = threading.Thread(target=second.take, args=(1000,))
    thread.start()
    first.give_back()
    thread.join(10)
    assert not thread.is_alive()


def test_who_waited_too_long_is_refused() -> None:
    budget = Budget(100, wait_s=0.05)
    first, second = budget.open(), budget.open()
    first.take(100)
    with pytest.raises(StoreUnavailable):
        second.take(1)
    assert budget.used_bytes == 100


def test_nobody_waits_for_longer_than_a_receiver_that_stops() -> None:
    budget = Budget(100, wait_s=3600.0)
    first, second = budget.open(), budget.open()
    first.take(100)
    refused = threading.Event()

    def write() -> None:
        with pytest.raises(StoreUnavailable):
            second.take(1)
        refused.set()

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    assert not refused.wait(0.1)
    budget.end_in(0.0)
    assert refused.wait(10)
    first.take(1000)  # the oldest goes on all the same


def test_giving_back_twice_is_giving_back_once() -> None:
    budget = Budget(100, wait_s=0.0)
    share = budget.open()
    share.take(50)
    share.give_back()
    share.give_back()
    assert budget.used_bytes == 0


def test_many_at_once_never_exceed_the_budget_by_more_than_the_oldest() -> None:
    budget, most = Budget(1000, wait_s=30.0), 0

    def send() -> None:
        nonlocal most
        for _ in range(20):
            share = budget.open()
            for _ in range(10):
                share.take(50)
                most = max(most, budget.used_bytes)
            share.give_back()

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    wait_until(lambda: not any(thread.is_alive() for thread in threads), within_s=30)
    assert budget.used_bytes == 0
    assert most <= 1000 + 500
