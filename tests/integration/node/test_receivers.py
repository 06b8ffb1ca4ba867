"""Several receivers on one port: nobody is refused because one of them is stopped, killed or replaced; limits hold in
sum."""

import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from config.settings import ReceiveSettings
from ledger.trail import PAGE_MAX, Asked
from node import notices
from node.running.receivers import wanted
from tests.support.encoded import CT, data_set, element
from tests.support.rawscu import EXPLICIT_LITTLE, IMPLICIT_LITTLE, VERIFICATION, RawScu, Rejected, associate_rq, p_data
from tests.support.running import START_WITHIN_S, RunningNode
from tests.support.siblings import Siblings
from tests.support.waiting import wait_until

ECHO = [(VERIFICATION, (IMPLICIT_LITTLE,))]
CALLERS = 40


def call(address: tuple[str, int]) -> socket.socket:
    """Connect and ask for an association, without waiting for an answer."""
    connection = socket.create_connection(address, timeout=20)
    connection.sendall(associate_rq(ECHO))
    return connection


def answered(connections: list[socket.socket]) -> int:
    """How many were accepted: A-ASSOCIATE-AC begins with 2."""
    answers = Counter(connection.recv(1) for connection in connections)
    return answers[b"\x02"]


def test_limits_hold_in_sum_and_a_killed_receiver_gives_its_places_back(tmp_path: Path) -> None:
    with Siblings(tmp_path, "max_associations = 3\nmax_associations_per_ae = 2") as node, ExitStack() as opened:
        first, second = node.processes
        node.freeze(first)
        for title in ("CT1", "MR1"):
            opened.enter_context(RawScu(node.address, calling=title))  # of the second
        node.thaw(first)
        node.freeze(second)
        opened.enter_context(RawScu(node.address, calling="CT1"))  # of the first
        for title in ("CT1", "US1"):
            with pytest.raises(Rejected) as caught:
                RawScu(node.address, calling=title)
            assert caught.value.triple == (2, 3, 2)
        second.kill()
        second.wait()
        for title in ("CT1", "US1"):
            opened.enter_context(RawScu(node.address, calling=title))
        with pytest.raises(Rejected):
            RawScu(node.address, calling="DX1")


def test_a_stopped_receiver_does_not_keep_callers_from_the_other(tmp_path: Path) -> None:
    with Siblings(tmp_path) as node, ExitStack() as opened:
        node.freeze(node.processes[0])
        callers = [opened.enter_context(closing(call(node.address))) for _ in range(CALLERS)]
        assert answered(callers) == CALLERS


@pytest.mark.parametrize("left", ["a sibling", "its successor"])
def test_who_waits_while_a_receiver_is_killed_is_served(tmp_path: Path, left: str) -> None:
    with Siblings(tmp_path, count=2 if left == "a sibling" else 1) as node, ExitStack() as opened:
        for process in node.processes:
            node.freeze(process)
        callers = [opened.enter_context(closing(call(node.address))) for _ in range(CALLERS)]
        node.processes[0].kill()
        node.processes[0].wait()
        if left == "a sibling":
            node.thaw(node.processes[1])
        else:
            node.start(0)
        assert answered(callers) == CALLERS


def test_a_receiver_that_leaves_lets_associations_end_and_takes_no_new_ones(tmp_path: Path) -> None:
    with Siblings(tmp_path) as node:
        leaves, stays = node.processes
        node.freeze(stays)
        context = [(CT, (EXPLICIT_LITTLE,))]
        with RawScu(node.address, context) as scu:  # of the one that leaves
            node.thaw(stays)
            leaves.send_signal(signal.SIGUSR1)
            wait_until(lambda: b"role_stopping" in node.log.read_bytes(), 20)
            for number in range(3):
                uid = f"1.2.3.{number}"
                assert scu.store(CT, uid, data_set(SOPInstanceUID=uid)).status == 0
                with RawScu(node.address) as newcomer:  # of the other
                    assert newcomer.echo() == 0
                    newcomer.release()
            assert leaves.poll() is None
            scu.release()
        assert leaves.wait(90) == 0
        assert stays.poll() is None
        assert sum(node.ledger.counts()["instances"].values()) == 3


def test_a_receiver_that_is_told_to_stop_answers_what_it_has_begun(tmp_path: Path) -> None:
    with Siblings(tmp_path, count=1) as node, RawScu(node.address, [(CT, (EXPLICIT_LITTLE,))]) as scu:
        data = data_set(tail=element(0x7FE00010, "OW", bytes(300_000)), SOPInstanceUID="1.2.3.9")
        parts = [data[start : start + 100_000] for start in range(0, len(data), 100_000)]
        scu.send_command(CT, "1.2.3.9")
        scu.socket.sendall(p_data(1, 0, parts[0]))
        wait_until(lambda: any((node.ledger.store.root / "parts").iterdir()), 20)
        node.processes[0].terminate()
        wait_until(lambda: b"role_stopping" in node.log.read_bytes(), 20)
        for part in parts[1:]:
            scu.socket.sendall(p_data(1, 2 if part is parts[-1] else 0, part))
        assert scu.read_response().status == 0
        assert node.processes[0].wait(90) == 0


def test_processes_follow_the_cores_unless_a_person_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, processes in ((1, 1), (2, 1), (4, 2), (8, 4), (64, 4)):
        monkeypatch.setattr("os.sched_getaffinity", lambda pid, cores=cores: set(range(cores)))
        assert wanted(ReceiveSettings()) == processes
        assert wanted(ReceiveSettings(processes=3)) == 3


class Senders:
    """Modalities that never rest: one association after another, each instance noted once it is acknowledged."""

    def __init__(self, address: tuple[str, int], count: int) -> None:
        self.acknowledged: list[str] = []
        self.troubles: list[str] = []
        self._enough = threading.Event()
        self._address = address
        self._threads = [threading.Thread(target=self._send, args=(index,)) for index in range(count)]

    def __enter__(self) -> "Senders":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._enough.set()
        for thread in self._threads:
            thread.join()

    def _send(self, index: int) -> None:
        number = 0
        while not self._enough.is_set():
            try:
                with RawScu(self._address, [(CT, (EXPLICIT_LITTLE,))], calling=f"CT{index}", timeout_s=120) as scu:
                    for _ in range(5):
                        number += 1
                        self._store(scu, f"1.2.826.{index}.{number}")
                    scu.release()
            except Exception as error:  # noqa: BLE001  whatever it is, it is a sender that was let down
                self.troubles.append(repr(error))

    def _store(self, scu: RawScu, uid: str) -> None:
        study = f"{uid.rpartition('.')[0]}.0"
        status = scu.store(CT, uid, data_set(SOPInstanceUID=uid, StudyInstanceUID=study)).status
        if status == 0:
            self.acknowledged.append(uid)
        else:
            self.troubles.append(f"status {status:04X}")


def pids(node: RunningNode) -> set[int]:
    return {int(notices.read(node.settings, name).get("pid", 0)) for name in ("receive", "receive-2")}


def told(node: RunningNode, event: str, **facts: object) -> list[dict[str, object]]:
    return [line for line in node.logged() if line["event"] == event and facts.items() <= line.items()]


# Of a whole node's receivers the one that accepts this address never accepts again.
DEAFENING = "127.0.0.9"
DEAFENED = f"""
import socket, threading

def accept(self, of=socket.socket.accept):
    connection, peer = of(self)
    if peer[0] == {DEAFENING!r}:
        threading.Event().wait()
    return connection, peer

socket.socket.accept = accept
"""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """A node of two receivers, without models."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "path").mkdir()
    (folder / "path" / "sitecustomize.py").write_text(DEAFENED)
    node = RunningNode(folder, extra=f"[look]\nmodels_dir = {str(folder)!r}\n", processes=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder / "path"))
        node.start()
    try:
        yield node
    finally:
        assert node.stop() == 0


def freeze(pid: int) -> None:
    """SIGSTOP, and wait until none of its threads runs: until then it may accept one more."""
    os.kill(pid, signal.SIGSTOP)
    threads = list(Path(f"/proc/{pid}/task").iterdir())
    wait_until(lambda: all(b") T" in (thread / "stat").read_bytes() for thread in threads), 20, 0.001)


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """SIGSTOP, until it is left again."""
    freeze(pid)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def pid_of(node: RunningNode, name: str) -> int:
    return int(notices.read(node.settings, name).get("pid", 0))


def waiting(port: int) -> int:
    """How many connections nobody has accepted yet."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = [row[4] for row in rows if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port]
    return sum(int(queues.rpartition(":")[2], 16) for queues in listening)


def stuck_so_far(node: RunningNode, how: str) -> float:
    found = [line for line in node.get("/metrics").text.splitlines() if f'receivers_stuck_total{{how="{how}"}}' in line]
    return float(found[0].split()[-1])


@pytest.mark.timeout(500)
def test_receivers_are_renewed_one_by_one_and_no_sender_notices(two: RunningNode) -> None:
    node, before, died = two, pids(two), len(told(two, "role_died"))
    with Senders(("127.0.0.1", node.port), 4) as senders:
        wait_until(lambda: len(senders.acknowledged) > 20, 60)
        assert node.process is not None
        node.process.send_signal(signal.SIGHUP)
        wait_until(lambda: told(node, "receivers_renewed", done=True), START_WITHIN_S)
        counted = len(senders.acknowledged)
        wait_until(lambda: len(senders.acknowledged) > counted + 20, 60)
    assert senders.troubles == []
    assert not before & pids(node)
    assert len(told(node, "role_died")) == died
    stored = sum(node.ledger.counts()["instances"].values())
    assert stored == len(senders.acknowledged)
    print(f"{len(senders.acknowledged)} acknowledged, {stored} in the ledger, {len(senders.troubles)} troubles")

    def accepted() -> float:
        """Of four processes, two of which are gone."""
        lines = node.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("opentriage_receive_instances_total{"))

    wait_until(lambda: accepted() == stored, 30)
    assert accepted() == stored


@pytest.mark.timeout(500)
def test_a_receiver_that_is_stopped_is_replaced_and_callers_are_served_all_the_time(two: RunningNode) -> None:
    node, stopped, other = two, pid_of(two, "receive"), pid_of(two, "receive-2")
    address = ("127.0.0.1", node.port)
    assert stuck_so_far(node, "stopped") == 0  # it is there before the first, or no increase would be seen
    with ExitStack() as opened:
        freeze(stopped)
        callers = [opened.enter_context(closing(call(address))) for _ in range(CALLERS)]
        assert answered(callers) == CALLERS
        wait_until(lambda: pid_of(node, "receive") not in (0, stopped), START_WITHIN_S)
        assert told(node, "receiver_stuck", pid=stopped, how="stopped")
        assert told(node, "role_died", pid=stopped, status=-signal.SIGKILL)
        assert pid_of(node, "receive-2") == other

    def stuck() -> list[tuple[str, str]]:
        """What the audit trail says, which is written beside the replacement."""
        failures = node.ledger.audit_log(Asked(failures_only=True), limit=PAGE_MAX)  # one page of all may begin later
        lines = [line for line in failures if line.detail.get("did") == "stuck"]
        return [(line.detail["what"], line.detail["how"]) for line in lines]

    assert wait_until(stuck, 30) == [("receive", "stopped")]
    assert wait_until(lambda: stuck_so_far(node, "stopped"), 30) == 1


@pytest.mark.timeout(500)
def test_a_receiver_that_accepts_no_more_is_replaced_and_goes_on_with_what_it_had_accepted(two: RunningNode) -> None:
    node, address = two, ("127.0.0.1", two.port)
    deaf, other = pid_of(node, "receive-2"), pid_of(node, "receive")
    assert stuck_so_far(node, "deaf") == 0
    with ExitStack() as opened:
        with frozen(other):  # for less than it is waited for
            scu = opened.enter_context(RawScu(address, [(CT, (EXPLICIT_LITTLE,))]))
            opened.enter_context(closing(socket.create_connection(address, 20, (DEAFENING, 0))))
            wait_until(lambda: waiting(node.port) == 0, 9)  # other is frozen
        wait_until(lambda: told(node, "receiver_stuck", pid=deaf, how="deaf"), START_WITHIN_S)
        wait_until(lambda: pid_of(node, "receive-2") not in (0, deaf), START_WITHIN_S)
        uid = "1.2.826.9.1"
        assert scu.store(CT, uid, data_set(SOPInstanceUID=uid, StudyInstanceUID="1.2.826.9")).status == 0
        scu.release()
        wait_until(lambda: told(node, "receiver_left", pid=deaf, status=0), 60)
    assert pid_of(node, "receive") == other
    assert not told(node, "role_died", pid=deaf)
    assert wait_until(lambda: stuck_so_far(node, "deaf"), 30) == 1
