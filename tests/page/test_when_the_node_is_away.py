"""What is shown is not taken for what is: a node that is gone, hangs, or cannot read its ledger is seen to be so.

The browser's clock is wound on, so that nobody waits for what a reader would.
"""

import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Locator, Page, expect

from ledger.errors import LedgerUnavailable
from ledger.ledger import Ledger
from node.watching import health
from tests.support.page_site import Site
from tests.support.serving import serving, settings_in
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.page.conftest import Visitor
PERIOD_MS = 4_500  # a little more than the page's own
GONE = re.compile(r"Not renewed since \d\d:\d\d:\d\d\. The node does not answer\.")


def opened(visitor: "Visitor", path: str) -> tuple[Page, Locator]:
    """The page, and its banner."""
    visitor.page.clock.install()
    page = visitor.open(path)
    expect(page.locator("html.live")).to_be_attached()
    banner = page.locator("#stale")
    expect(banner).to_be_hidden()
    return page, banner


@pytest.mark.parametrize("of_study", [False, True])
def test_a_node_that_is_gone_is_seen_to_be_gone_each_time(site: Site, visitor: "Visitor", of_study: bool) -> None:
    visitor.expected = ("ERR_INTERNET_DISCONNECTED",)
    page, banner = opened(visitor, f"/study/{site.studies['HIGH']}" if of_study else "/")
    for _ in range(2):
        visitor.context.set_offline(True)
        page.clock.fast_forward(PERIOD_MS)
        expect(banner).to_have_text(GONE)
        expect(banner).to_be_in_viewport()
        expect(page).to_have_title(re.compile("^Not renewed: "))
        visitor.context.set_offline(False)
        page.clock.fast_forward(PERIOD_MS)
        expect(banner).to_be_hidden()
        expect(page).not_to_have_title(re.compile("^Not renewed: "))


def test_a_node_that_hangs_is_seen_to_hang(site: Site, visitor: "Visitor") -> None:
    page, banner = opened(visitor, "/")
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    web = site.node.role_pid("web")
    os.kill(web, signal.SIGSTOP)
    try:
        page.clock.fast_forward(PERIOD_MS)  # asks, and waits for the answer
        page.clock.fast_forward(8_500)
        expect(banner).to_have_text(GONE)
        expect(banner).to_be_in_viewport()
        ages = page.locator("#rows time").all_inner_texts()
        page.clock.fast_forward(120_000)
        assert page.locator("#rows time").all_inner_texts() == ages  # nothing counts on as if it were known
    finally:
        os.kill(web, signal.SIGCONT)
    page.clock.fast_forward(PERIOD_MS)
    expect(banner).to_be_hidden()


def test_silence_is_noticed_whatever_became_of_the_question(visitor: "Visitor") -> None:
    page, banner = opened(visitor, "/")
    page.evaluate("() => { window.fetch = () => new Promise(() => {}); }")
    page.clock.fast_forward(3 * PERIOD_MS)
    page.clock.run_for(1_000)
    expect(banner).to_have_text(GONE)


def test_a_ledger_that_cannot_be_read_is_said_on_every_page_until_it_can(
    visitor: "Visitor", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise LedgerUnavailable("the database is away")

    monkeypatch.setattr(health, "own_echo", lambda settings, timeout_s: True)
    visitor.expected = ("503", "ERR_CONNECTION")
    with serving(settings_in(tmp_path)) as served:
        visitor.site_url = served.url
        page, banner = opened(visitor, "/?since=7d")
        with monkeypatch.context() as away:
            away.setattr(Ledger, "worklist", refuse)
            page.clock.fast_forward(PERIOD_MS)
            expect(banner).to_have_text(re.compile(r"Not renewed since .*\. The ledger cannot be read\."))
            answer = page.reload()
            assert answer is not None
            assert answer.status == 503
            expect(page.get_by_role("alert")).to_have_text("The ledger cannot be read.")
            with page.expect_response(lambda one: one.status == 503):
                page.clock.fast_forward(PERIOD_MS + 1_000)
            expect(page.get_by_role("alert")).to_have_text("The ledger cannot be read.")

        def is_back() -> bool:
            page.clock.fast_forward(PERIOD_MS + 1_000)
            return page.get_by_role("heading", name="Triage list").is_visible()

        wait_until(is_back, 60, 0.5)
        assert page.url.endswith("/?since=7d")
