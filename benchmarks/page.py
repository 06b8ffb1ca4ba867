"""What pages that are left open cost the web role: each renews its triage list as node/templates/page.js does, at a
ledger that changes all the time.

PYTHONPATH=. python -m benchmarks.page --visitors 50 --rounds 4
PYTHONPATH=. python -m benchmarks.page --beside FOLDER     # in turn with another checkout of this repository

The web role's server is a process of its own, and its processor seconds are counted alone; the ledger, who reads the
headers for names, and who changes four studies a second are in this process. No receiver runs.
"""

import argparse
import http.client
import os
import statistics
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from benchmarks.page_site import PLACES, fill
from benchmarks.watched import Watched
from config import Settings
from ledger.access import Role
from ledger.delivery_records import DeliveryOutcome, DeliveryState
from ledger.ledger import Ledger
from ledger.records import Stage
from node.running.listening import listen
from node.web.app import make_app
from node.web.server import make_server
from node.wiring import open_ledger
from tests.support.looking import headers_read

ROOT: Final = Path(__file__).resolve().parents[1]
BEAT_S, CHANGES_EVERY_S = 4.0, 0.25
LIST: Final = "/?since=30d"
KINDS: Final = {"stranger": LIST, "signed in": LIST, "signed in, names": LIST + "&names=1"}


@dataclass
class Spent:
    """Of one kind of visitor at one server. each_s: processor seconds a renewal, and shares: of one core, by round."""

    each_s: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    renewals: int = 0
    took_s: list[float] = field(default_factory=list)


def serve(state: Path, port_file: Path) -> None:
    """The web role's server, until it is killed."""
    settings = settings_of(state)
    listening = listen("127.0.0.1", 0)
    port_file.with_suffix(".new").write_text(str(listening.getsockname()[1]))
    port_file.with_suffix(".new").rename(port_file)
    make_server(make_app(settings, open_ledger(settings)), settings.web).run(sockets=[listening])


def settings_of(state: Path) -> Settings:
    return Settings.model_validate({"node": {"state_dir": state}})


@contextmanager
def served(code: Path, state: Path, folder: Path) -> Iterator[tuple[Watched, int]]:
    """A server of this code. Its port."""
    port_file = folder / f"port-{state.name}-{abs(hash(code))}"
    env = {**os.environ, "PYTHONPATH": f"{code}:{ROOT}"}
    command = [sys.executable, "-P", "-m", "benchmarks.page", "--serve", str(state), str(port_file)]
    with Watched(command, env, folder / "log", cwd=folder) as watched:
        while not port_file.exists():
            if watched.process.poll() is not None:
                raise SystemExit((folder / "log").read_text())
            time.sleep(0.1)
        yield watched, int(port_file.read_text())


class Visitor(threading.Thread):
    """One open page. address: of the list."""

    def __init__(self, port: int, address: str, cookie: str, begins_s: float, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._port, self._address, self._begins_s, self._over = port, address, begins_s, stop
        self._headers = {"X-Live": "1", "Accept": "text/html", **({"Cookie": cookie} if cookie else {})}
        self.took_s: list[float] = []

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=120)
        wait_s = self._begins_s
        while not self._over.wait(wait_s):
            began = time.perf_counter()
            connection.request("GET", self._address, headers=self._headers)
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status == 200, answer.status
            assert b"Invented" not in text or "names" in self._address
            self.took_s.append(time.perf_counter() - began)
            wait_s = BEAT_S - min(self.took_s[-1], 1.0)
        connection.close()


class Changing(threading.Thread):
    """The archive does not answer, of one study after another."""

    def __init__(self, ledger: Ledger, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._ledger, self._over = ledger, stop

    def run(self) -> None:
        tries = 0
        while not self._over.wait(CHANGES_EVERY_S):
            for job in self._ledger.claim(Stage.DELIVER, "page", 1, 60.0, PLACES[1]):
                tries += 1
                for stored in self._ledger.undelivered(job):
                    outcome = DeliveryOutcome(stored.object_id, DeliveryState.WAITING, None, f"No answer, {tries}.")
                    self._ledger.record_delivery(job, outcome)
                self._ledger.retry(job, "No answer.", 0.0)


def signed_in(port: int, token: str) -> str:
    """The cookie."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    connection.request("POST", "/sign-in", urlencode({"token": token}), form)
    answer = connection.getresponse()
    cookie = (answer.getheader("set-cookie") or "").partition(";")[0]
    answer.read()
    connection.close()
    assert cookie, answer.status
    return cookie


def once(server: tuple[Watched, int], kind: str, cookies: Sequence[str], for_s: float, spent: Spent) -> None:
    """One round."""
    watched, port = server
    stop, address = threading.Event(), KINDS[kind]
    known = kind != "stranger"
    visitors = [
        Visitor(port, address, cookie if known else "", BEAT_S * number / len(cookies), stop)
        for number, cookie in enumerate(cookies)
    ]
    for one in visitors:
        one.start()
    time.sleep(BEAT_S + 1.0)  # the first look of each is recorded, and is dearer
    cpu_s, began, before = watched.cpu_s(), time.perf_counter(), sum(len(one.took_s) for one in visitors)
    time.sleep(for_s)
    cpu_s, elapsed_s = watched.cpu_s() - cpu_s, time.perf_counter() - began
    renewals = sum(len(one.took_s) for one in visitors) - before
    stop.set()
    for one in visitors:
        one.join(60)
        spent.took_s += one.took_s[1:]
    spent.each_s.append(cpu_s / max(renewals, 1))
    spent.shares.append(cpu_s / elapsed_s)
    spent.renewals += renewals


def measure(folder: Path, studies: int, images: int, asked: argparse.Namespace) -> None:
    state = folder / f"state-{studies}-{images}"
    settings = settings_of(state)
    ledger = open_ledger(settings)
    fill(ledger, studies, images)
    tokens = [ledger.create_token(f"reader-{number}", Role.READ, 1, "user:page") for number in range(asked.visitors)]
    codes = {"here": ROOT, **({"beside": asked.beside.resolve()} if asked.beside else {})}
    stop = threading.Event()
    with ExitStack() as stack:
        stack.enter_context(headers_read(settings))
        servers = {name: stack.enter_context(served(code, state, folder)) for name, code in codes.items()}
        cookies = {name: [signed_in(port, token) for token in tokens] for name, (_, port) in servers.items()}
        Changing(ledger, stop).start()
        found = {(name, kind): Spent() for kind in KINDS for name in servers}
        for _ in range(asked.rounds):
            for (name, kind), spent in found.items():
                once(servers[name], kind, cookies[name], asked.for_s, spent)
        stop.set()
    for (name, kind), spent in found.items():
        print(f"| {studies} x {images} | {kind} | {name} | {_line(spent)} |", flush=True)
    ledger.close()


def _line(spent: Spent) -> str:
    each, shares = [one * 1e3 for one in spent.each_s], spent.shares
    cells = [
        f"{statistics.median(each):.1f} ({min(each):.1f} to {max(each):.1f})",
        f"{statistics.median(shares):.2f} ({min(shares):.2f} to {max(shares):.2f})",
        f"{statistics.median(spent.took_s):.2f} ({max(spent.took_s):.2f})",
        f"{spent.renewals} in {len(each)}",
    ]
    return " | ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", nargs=2, type=Path, metavar=("STATE", "PORT_FILE"), help=argparse.SUPPRESS)
    parser.add_argument("--studies", nargs="+", default=["100x1", "500x1"], help="how many, and images of each")
    parser.add_argument("--visitors", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--for-s", type=float, default=12.0)
    parser.add_argument("--beside", type=Path, help="another checkout, measured in turn")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    if asked.serve:
        serve(*asked.serve)
        return
    print(
        "| studies x images | visitors | code | CPU ms a renewal | cores | seconds to the answer, median (most) | n |"
    )
    print("|---|---|---|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        for one in asked.studies:
            studies, _, images = one.partition("x")
            measure(Path(folder), int(studies), int(images or 1), asked)


if __name__ == "__main__":
    main()
