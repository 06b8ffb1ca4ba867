"""Pages that renew themselves share what they read of the ledger, and nothing else: no name, no form, no record of who
looked; and each shows what was in the ledger when it asked."""

import asyncio
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom import dcmread
from starlette.requests import Request

from config import Settings
from ledger.access import Principal, Role
from ledger.audit import AuditEvent
from ledger.completion import Completion
from ledger.delivery_records import DeliveryOutcome, DeliveryState
from ledger.errors import LedgerUnavailable
from ledger.ledger import Ledger
from ledger.records import Stage, TriagePriority
from ledger.tables import audit_records
from node import notices
from node.trying.demo import SAMPLES
from node.watching import health
from node.web import page_together
from node.web.access import Guard
from node.web.app import make_app
from node.web.identities import Identities
from node.web.page_frame import Frame
from node.web.page_rows import Asked, Rows
from node.web.page_together import Reading
from node.wiring import open_ledger
from tests.support import ledgers
from tests.support.looking import headers_read
from tests.support.records import received, stored_object

STUDY, LATER = "2.25.77", "2.25.78"
NAMED, PLAIN = "/?names=1", "/"
LIVE = {"X-Live": "1"}
AT_LONGEST_S = 60.0


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "own_echo", lambda settings, timeout_s: True)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.model_validate({"node": {"state_dir": tmp_path}})


@pytest.fixture
def ledger(settings: Settings, tmp_path: Path) -> Iterator[Ledger]:
    """A study of a child with a name."""
    ledgers.laid(settings.database_url)
    opened = open_ledger(settings)
    ds = dcmread(next(SAMPLES.glob("*.dcm")))
    ds.PatientName, ds.PatientID, ds.AccessionNumber, ds.StudyInstanceUID = "SENTINEL^A", "ZZ-4711", "ACC-9", STUDY
    ds.save_as(tmp_path / "sent.dcm")
    path = opened.store.put("instances", "ab" * 32, ".dcm", (tmp_path / "sent.dcm").read_bytes())
    flagged(opened, STUDY, path=path, sha256="ab" * 32)
    yield opened
    opened.close()


def flagged(ledger: Ledger, study: str, **changes: object) -> None:
    ledger.admit(received(study, **changes), Completion(60.0))
    for job in ledger.claim(Stage.ANALYSE, "test", 9, 60.0):
        ledger.finish_analysis(job, [ledgers.analysed(0.93, TriagePriority.HIGH)])


class Site:
    """An application in one event loop."""

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self.app = make_app(settings, ledger)
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=self.app, raise_app_exceptions=False), base_url="http://127.0.0.1"
        )

    async def signed_in(self, ledger: Ledger, name: str) -> str:
        """The cookie."""
        token = ledger.create_token(name, Role.READ, 1.0, "user:test")
        answer = await self.client.post("/sign-in", data={"token": token})
        self.client.cookies.clear()
        return answer.headers["set-cookie"].partition(";")[0]

    async def page(self, path: str, cookie: str = "", live: bool = True) -> httpx.Response:
        headers = (LIVE if live else {}) | ({"Cookie": cookie} if cookie else {})
        return await asyncio.wait_for(self.client.get(path, headers=headers), AT_LONGEST_S)


@pytest.fixture
def site(settings: Settings, ledger: Ledger) -> Site:
    return Site(settings, ledger)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """As at a node, but that nobody waits long for others."""
    monkeypatch.setattr(page_together, "APART_S", 0.05)


@pytest.mark.usefixtures("soon")
def test_whoever_asks_beside_whom_each_gets_his_own_page_and_the_trail_says_who_saw_names(
    settings: Settings, ledger: Ledger, site: Site
) -> None:
    async def ask() -> None:
        anna, bert = [await site.signed_in(ledger, name) for name in ("anna", "bert")]
        visitors = {"named": (NAMED, anna), "plain": (PLAIN, bert), "stranger": (PLAIN, ""), "asks": (NAMED, "")}
        assert "SENTINEL" in (await site.page(NAMED, anna)).text
        for order in permutations(visitors):
            pages = await asyncio.gather(*(site.page(*visitors[who]) for who in order))
            texts = {who: page.text for who, page in zip(order, pages, strict=True)}
            for who, text in texts.items():
                assert STUDY in text
                assert [word for word in ("SENTINEL", "ZZ-4711", "ACC-9") if word in text] == (
                    ["SENTINEL", "ZZ-4711", "ACC-9"] if who == "named" else []
                ), (who, order)
                assert ("picture.png" in text) == (who in ("named", "plain")), (who, order)
                assert ("anna" in text, "bert" in text) == (who == "named", who == "plain"), (who, order)
            tokens = [set(re.findall(r'name="csrf" value="(\w+)"', texts[who])) for who in ("named", "plain")]
            assert [len(one) for one in tokens] == [1, 1]
            assert tokens[0] != tokens[1]
            assert "csrf" not in texts["stranger"] + texts["asks"]

    with headers_read(settings):
        asyncio.run(ask())
    with ledger._read() as connection:
        rows = connection.execute(audit_records.select()).all()
    for what, who in (("identity", {"user:anna"}), ("worklist", {"user:anna", "user:bert"})):
        assert {row.actor for row in rows if f'"{what}"' in str(row.detail)} == who


@pytest.mark.usefixtures("soon")
def test_two_who_see_names_at_once_are_both_in_the_trail(settings: Settings, ledger: Ledger, site: Site) -> None:
    async def ask() -> None:
        cookies = [await site.signed_in(ledger, name) for name in ("anna", "bert")]
        for page in await asyncio.gather(*(site.page(NAMED, cookie) for cookie in cookies)):
            assert "SENTINEL" in page.text

    with headers_read(settings):
        asyncio.run(ask())
    with ledger._read() as connection:
        rows = connection.execute(audit_records.select()).all()
    named = [row for row in rows if '"identity"' in str(row.detail)]
    assert sorted(row.actor for row in named) == ["user:anna", "user:bert"]
    assert all(row.study_key for row in named)


def test_what_is_in_the_ledger_when_a_page_asks_is_in_its_answer(
    settings: Settings, ledger: Ledger, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even while others are being answered with what was read before."""
    read, reading, go_on = ledger.worklist, threading.Event(), threading.Event()

    def slow(*asked: Any) -> Any:
        found = read(*asked)
        reading.set()
        assert go_on.wait(AT_LONGEST_S)
        return found

    async def ask() -> None:
        monkeypatch.setattr(ledger, "worklist", slow)
        first = asyncio.create_task(site.page(PLAIN))
        assert await asyncio.to_thread(reading.wait, AT_LONGEST_S)
        flagged(ledger, LATER)
        notices.publish(settings, "analyse", provider="cpu", degraded=False, refused=["the package nan is refused"])
        others = [asyncio.create_task(site.page(PLAIN)) for _ in range(3)]
        await asyncio.sleep(0)
        go_on.set()
        assert LATER not in (await first).text
        for page in await asyncio.gather(*others):
            assert LATER in page.text
            assert "the package nan is refused" in page.text
        flagged(ledger, "2.25.79")
        assert "2.25.79" in (await site.page(PLAIN)).text, "at once after another"

    asyncio.run(ask())


def test_many_pages_that_ask_at_once_are_read_once_and_a_person_never_waits_for_them(
    ledger: Ledger, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, readings = ledger.worklist, []

    def counted(*asked: Any) -> Any:
        readings.append(asked)
        return read(*asked)

    async def ask() -> None:
        monkeypatch.setattr(ledger, "worklist", counted)
        monkeypatch.setattr(page_together, "APART_S", 1e6)
        pages = await asyncio.gather(*(site.page(PLAIN) for _ in range(30)))
        assert all(STUDY in page.text for page in pages)
        assert len(readings) == 1
        waits = asyncio.create_task(site.page(PLAIN))
        flagged(ledger, LATER)
        assert LATER in (await site.page(PLAIN, live=False)).text
        assert not waits.done()
        waits.cancel()

    asyncio.run(ask())


@pytest.mark.usefixtures("soon")
def test_a_ledger_that_is_away_is_said_on_every_page_that_asked_and_on_none_afterwards(
    ledger: Ledger, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*asked: Any) -> Any:
        raise LedgerUnavailable("the disk is full")

    async def ask() -> None:
        with monkeypatch.context() as broken:
            broken.setattr(ledger, "worklist", away)
            pages = await asyncio.gather(*(site.page(PLAIN) for _ in range(5)))
            assert [page.status_code for page in pages] == [503] * 5
        assert STUDY in (await site.page(PLAIN)).text

    asyncio.run(ask())


@pytest.mark.usefixtures("soon")
def test_a_name_is_kept_with_no_line_and_goes_with_its_image(settings: Settings, ledger: Ledger, site: Site) -> None:
    async def ask() -> None:
        anna = await site.signed_in(ledger, "anna")
        assert "SENTINEL" in (await site.page(NAMED, anna)).text
        ledger.store.path(ledger.first_images([STUDY])[STUDY]).unlink()
        assert "SENTINEL" not in (await site.page(NAMED, anna)).text

    keeps: list[Rows] = []
    made = Rows.__init__
    with headers_read(settings), pytest.MonkeyPatch.context() as watched:
        watched.setattr(Rows, "__init__", lambda rows, *given: (made(rows, *given), keeps.append(rows))[0])
        site = Site(settings, ledger)
        asyncio.run(ask())
    [rows] = keeps
    assert STUDY in repr(rows._kept)
    assert [word for word in ("SENTINEL", "ZZ-4711", "ACC-9") if word in repr(rows._kept)] == []


def test_a_line_that_is_kept_is_the_one_that_would_be_made(settings: Settings, ledger: Ledger) -> None:
    frame = Frame(settings, ledger, health.HealthCheck(settings, ledger))
    rows, identities, seen = Rows(frame.templates), Identities(settings, ledger), set()
    for change in ("", "reported", "not answered", "more came"):
        if change == "reported":
            (report,) = ledger.claim(Stage.REPORT, "test", 1, 60.0)
            made = [stored_object(ledger.store)]
            ledger.finish_report(report, ledger.study_findings(report), made, ledgers.all_to(made, ["pacs"]))
        elif change == "not answered":
            (job,) = ledger.claim(Stage.DELIVER, "test", 1, 60.0, "pacs")
            (stored,) = ledger.undelivered(job)
            outcome = DeliveryOutcome(stored.object_id, DeliveryState.WAITING, None, "It does not answer.")
            ledger.record_delivery(job, outcome)
        elif change:
            ledger.admit(received(STUDY), Completion(60.0))
        reading = Reading(ledger, identities, datetime.now(UTC) - timedelta(days=1))
        [entry] = reading.entries
        entry = replace(entry, first_received_at=entry.last_image_at - timedelta(seconds=45))
        parts = reading.parts([entry])[STUDY]
        for later_s in (0, 0, 30, 31, 134, 136, 3_600, 90_000, 0):
            now = entry.last_image_at.astimezone() + timedelta(seconds=later_s)
            for may_read, is_open, address in ((False, False, ""), (True, False, ""), (True, True, "/?open=1")):
                asked = Asked(now, may_read, is_open, address)
                line = rows.line(entry, parts, asked)
                assert line == Rows(frame.templates).line(entry, parts, asked)
                seen.add(line)
    assert len(seen) == 7 * 2 + 3 * 7 * 3, "before the report there is nothing to open"


def test_fifty_readers_of_a_hundred_names_are_each_recorded_once(
    settings: Settings, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[AuditEvent] = []
    monkeypatch.setattr(ledger, "audit", lambda *events: kept.extend(events))
    guard, request = Guard(settings, ledger), Request({"type": "http", "client": ("127.0.0.1", 1)})
    studies = [f"2.25.{number}" for number in range(100)]

    async def look() -> None:
        for reader in range(50):
            who = Principal(f"reader-{reader}", Role.READ)
            await guard.accessed(request, who, "identity", *studies, renewal=True)

    for _ in range(3):
        asyncio.run(look())
    assert len(kept) == 50 * 100
