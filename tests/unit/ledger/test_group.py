"""Leader and followers: everybody is answered once, with its own outcome, in order, and nobody works for ever."""

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import pytest

from ledger.group import Coming, Group, LeaderLost
from tests.support.waiting import wait_until


class Callers:
    """Threads that hand in one item each and keep what they were told."""

    def __init__(self, group: Group[int, str]) -> None:
        self.group = group
        self.told: dict[int, str | BaseException] = {}
        self.threads: dict[int, threading.Thread] = {}

    def hand_in(self, item: int) -> None:
        def call() -> None:
            try:
                self.told[item] = self.group.hand_in(item)
            except BaseException as error:  # noqa: BLE001
                self.told[item] = error

        self.threads[item] = threading.Thread(target=call, daemon=True)
        self.threads[item].start()

    def queue(self, *items: int) -> None:
        """One behind the other, while somebody else leads."""
        for item in items:
            self.hand_in(item)
            wait_until(partial(self._is_queued, item), within_s=30)

    def _is_queued(self, item: int) -> bool:
        return item in [turn.item for turn in self.group._queue]

    def join(self) -> None:
        for thread in self.threads.values():
            thread.join(30)
            assert not thread.is_alive()


class Work:
    """Keeps who worked on what; the first group waits until it is let go."""

    def __init__(self, say: Callable[[int], str | Exception] = str) -> None:
        self.say = say
        self.groups: list[tuple[str, list[int]]] = []
        self.gate = threading.Event()

    def __call__(self, items: Sequence[int]) -> list[str | Exception]:
        self.groups.append((threading.current_thread().name, list(items)))
        assert self.gate.wait(60)
        return [self.say(item) for item in items]


@pytest.fixture
def work() -> Iterator[Work]:
    work = Work()
    yield work
    work.gate.set()


def begun(work: Work, largest: int = 64) -> Callers:
    """Number 0 leads alone and is busy."""
    callers = Callers(Group(work, largest))
    callers.hand_in(0)
    wait_until(lambda: bool(work.groups), within_s=30)
    return callers


def test_what_comes_while_a_group_is_done_is_the_next_group_in_order(work: Work) -> None:
    callers = begun(work)
    callers.queue(3, 1, 2)
    work.gate.set()
    callers.join()
    assert [items for _, items in work.groups] == [[0], [3, 1, 2]]
    assert callers.told == {0: "0", 3: "3", 1: "1", 2: "2"}


def test_a_leader_works_for_one_group_and_the_first_in_the_queue_for_the_next(work: Work) -> None:
    callers = begun(work, largest=2)
    callers.queue(1, 2, 3, 4, 5)
    work.gate.set()
    callers.join()
    assert [items for _, items in work.groups] == [[0], [1, 2], [3, 4], [5]]
    assert [name for name, _ in work.groups] == [callers.threads[first].name for first in (0, 1, 3, 5)]


def test_each_gets_its_own_error(work: Work) -> None:
    work.say = lambda item: ValueError(str(item)) if item % 2 else str(item)
    callers = begun(work)
    callers.queue(1, 2, 3)
    work.gate.set()
    callers.join()
    assert callers.told[2] == "2"
    assert [str(callers.told[item]) for item in (1, 3)] == ["1", "3"]
    assert isinstance(callers.told[1], ValueError)


def test_what_the_work_raises_is_raised_in_every_thread_as_an_object_of_its_own(work: Work) -> None:
    callers = begun(work)
    callers.queue(1, 2)

    def broken(items: Sequence[int]) -> list[str | Exception]:
        raise OSError(5, "Input/output error")

    callers.group._work = broken
    work.gate.set()
    callers.join()
    errors = [callers.told[1], callers.told[2]]
    assert [getattr(error, "errno", None) for error in errors] == [5, 5]
    assert errors[0] is not errors[1]


def test_a_leader_that_dies_leaves_nobody_waiting_and_the_next_leads(work: Work) -> None:
    callers = begun(work, largest=2)
    callers.queue(1, 2, 3)
    real, calls = callers.group._work, []

    def dies_once(items: Sequence[int]) -> Sequence[str | Exception]:
        calls.append(items)
        if len(calls) == 1:
            raise SystemExit
        return real(items)

    callers.group._work = dies_once
    work.gate.set()
    callers.join()
    assert isinstance(callers.told[1], SystemExit)
    assert isinstance(callers.told[2], LeaderLost)
    assert callers.told[3] == "3"
    callers.hand_in(4)
    callers.join()
    assert callers.told[4] == "4"


class Arriving(Callers):
    """Some say that they come before they do."""

    def __init__(self, group: Group[int, str]) -> None:
        super().__init__(group)
        self.coming: dict[int, Coming] = {}

    def announce(self, item: int) -> None:
        self.coming[item] = Coming(self.group).__enter__()

    def hand_in(self, item: int) -> None:
        def call() -> None:
            self.told[item] = self.group.hand_in(item, self.coming.get(item))

        self.threads[item] = threading.Thread(target=call, daemon=True)
        self.threads[item].start()

    def is_waiting(self) -> bool:
        return bool(self.group._awaited)


@pytest.fixture
def arriving(work: Work, monkeypatch: pytest.MonkeyPatch) -> Arriving:
    """The work took long the last time."""
    monkeypatch.setattr("ledger.group.PATIENCE_MAX_S", 90.0)
    callers = Arriving(Group(work))
    callers.group._took_s = 90.0
    work.gate.set()
    return callers


def test_a_leader_waits_for_those_who_said_before_that_they_come(arriving: Arriving, work: Work) -> None:
    for item in (1, 2):
        arriving.announce(item)
    arriving.hand_in(0)
    wait_until(arriving.is_waiting, within_s=30)
    arriving.announce(3)  # too late: not waited for
    arriving.queue(2)
    assert work.groups == []
    arriving.hand_in(1)
    arriving.join()
    assert [sorted(items) for _, items in work.groups] == [[0, 1, 2]]


def test_a_leader_waits_no_longer_for_one_who_does_not_come_after_all(arriving: Arriving, work: Work) -> None:
    arriving.announce(1)
    arriving.hand_in(0)
    wait_until(arriving.is_waiting, within_s=30)
    arriving.coming[1].__exit__(None, None, None)
    arriving.join()
    assert [items for _, items in work.groups] == [[0]]


@pytest.mark.parametrize(("took_s", "patience_s"), [(0.01, 90.0), (90.0, 0.01)])
def test_a_leader_waits_no_longer_than_the_work_took_the_last_time_and_never_long(
    arriving: Arriving, work: Work, monkeypatch: pytest.MonkeyPatch, took_s: float, patience_s: float
) -> None:
    monkeypatch.setattr("ledger.group.PATIENCE_MAX_S", patience_s)
    arriving.announce(1)
    arriving.group._took_s = took_s
    arriving.hand_in(0)
    arriving.join()
    arriving.hand_in(1)  # comes late
    arriving.join()
    assert [items for _, items in work.groups] == [[0], [1]]
    assert not arriving.group._coming


def test_one_whom_a_leader_gave_up_does_not_open_the_next_ones_gate(arriving: Arriving, work: Work) -> None:
    arriving.announce(1)
    arriving.group._took_s = 0.0
    for item in (0, 1):
        arriving.hand_in(item)
        arriving.join()
    arriving.announce(3)
    arriving.group._took_s = 90.0
    arriving.hand_in(2)
    wait_until(arriving.is_waiting, within_s=30)
    arriving.hand_in(3)
    arriving.join()
    assert [items for _, items in work.groups] == [[0], [1], [2, 3]]


def test_a_full_group_waits_for_nobody(arriving: Arriving, work: Work) -> None:
    arriving.group._largest = 1
    arriving.announce(1)
    arriving.hand_in(0)
    arriving.threads[0].join(30)
    assert [items for _, items in work.groups] == [[0]]


def test_a_leader_whose_waiting_fails_still_does_the_work(arriving: Arriving, work: Work) -> None:
    class Full(set[Coming]):
        def copy(self) -> set[Coming]:
            raise MemoryError

    arriving.group._coming = Full([Coming(arriving.group)])
    with pytest.raises(MemoryError):
        arriving.group.hand_in(0)
    arriving.group._coming = set()
    assert arriving.group.hand_in(1) == "1"
    assert [items for _, items in work.groups] == [[0], [1]]


def test_many_threads_are_all_answered_and_never_two_work_at_once() -> None:
    busy = threading.Lock()

    def alone(items: Sequence[int]) -> list[str]:
        assert busy.acquire(blocking=False)
        assert len(items) <= 4
        busy.release()
        return [str(item) for item in items]

    group: Group[int, str] = Group(alone, largest=4)
    wrong: list[object] = []

    def call(first: int) -> None:
        for item in range(first, first + 50):
            with Coming(group) as coming:
                if (told := group.hand_in(item, coming if item % 3 else None)) != str(item):
                    wrong.append(told)

    threads = [threading.Thread(target=call, args=(n * 1000,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert wrong == []
