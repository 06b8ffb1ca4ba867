"""The triage list as somebody reads it at night: live, in order, by keyboard, without names."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from playwright.sync_api import Locator, expect

from ledger.access import Role
from tests.support.page_site import Site
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.page.conftest import Keep, Visitor
WITHIN_S = 60.0  # a deadline, on a machine that may be busy
URGENCY = ["HIGH", "MEDIUM", "NOT ASSESSED", "unflagged"]


def test_a_study_that_arrives_appears_by_itself_and_moves_nothing_that_the_reader_holds(
    site: Site, visitor: "Visitor"
) -> None:
    page = visitor.open()
    page.evaluate("window.sameDocument = true")
    last = page.locator("#rows tr").last
    held = last.get_attribute("data-key")
    last.get_by_text("each object").click()
    last.locator("a.open").focus()
    place = page.evaluate("document.activeElement.getBoundingClientRect().top")
    uid = site.send("synthetic-chest-2", 20)
    expect(page.locator(f'tr[data-key="{uid}"]')).to_have_attribute("data-word", "HIGH", timeout=120_000)
    assert page.evaluate("window.sameDocument") is True
    assert page.evaluate("document.activeElement.closest('tr').dataset.key") == held
    assert abs(page.evaluate("document.activeElement.getBoundingClientRect().top") - place) < 3
    assert page.locator(f'tr[data-key="{held}"] details.each').get_attribute("open") is not None
    expect(page.locator("#announce")).to_contain_text("HIGH")
    assert visitor.uids().index(uid) < visitor.uids().index(str(held))
    site.reported(uid)


def test_the_most_urgent_stand_above(visitor: "Visitor", keep: "Keep") -> None:
    keep(visitor.open(), "triage-list")
    words = visitor.words()
    assert set(words) >= {"HIGH", "unflagged", "NOT ASSESSED"}
    assert words == sorted(words, key=URGENCY.index)


def test_no_page_calls_a_study_well(site: Site, visitor: "Visitor") -> None:
    for path in ["/", "/pace", "/parked", *(f"/study/{uid}" for uid in site.studies.values())]:
        text = visitor.open(path).locator("body").inner_text()
        assert not re.search(r"\bnormal\b", text, re.IGNORECASE), path
        assert not re.search(r"\bLOW\b", text), path
    assert "no flagged finding; other disease was not looked for" in visitor.open().locator("#rows").inner_text()


def test_choosing_a_priority_leaves_only_its_studies_and_stays_in_the_address(visitor: "Visitor") -> None:
    page = visitor.open()
    page.get_by_role("checkbox", name="NOT ASSESSED").check()
    wait_until(lambda: set(visitor.words()) == {"NOT ASSESSED"}, WITHIN_S)
    assert "priority=NOT+ASSESSED" in page.url
    expect(page.get_by_role("checkbox", name="NOT ASSESSED")).to_be_focused()
    page.reload()
    assert set(visitor.words()) == {"NOT ASSESSED"}
    page.get_by_label("State").select_option("trouble")
    expect(page.get_by_text("No study fits.")).to_be_visible()
    page.get_by_role("link", name="Show all").click()
    wait_until(lambda: len(set(visitor.words())) > 2, WITHIN_S)


def test_a_destination_and_a_model_can_be_chosen(visitor: "Visitor") -> None:
    page = visitor.open()
    number = len(visitor.uids())
    page.get_by_label("Destination").select_option("archive")
    page.get_by_label("State").select_option("unsent")
    page.wait_for_url(re.compile("state=unsent"))
    wait_until(lambda: len(visitor.uids()) == number, WITHIN_S)
    page.get_by_label("State").select_option("delivered")
    expect(page.get_by_text("No study fits.")).to_be_visible()
    page.get_by_label("State").select_option("")
    page.get_by_label("Model").select_option("chest-pneumonia/1.2.1")
    wait_until(lambda: len(visitor.uids()) > 0, WITHIN_S)


def test_a_study_is_found_by_its_uid_and_by_its_accession_number_once_signed_in(
    site: Site, arrive: "Callable[..., Visitor]"
) -> None:
    stranger, reader = arrive(), arrive()
    uid = site.studies["HIGH"]
    page = stranger.open()
    page.keyboard.press("/")
    page.keyboard.type(uid[-10:])
    wait_until(lambda: stranger.uids() == [uid], WITHIN_S)
    page.get_by_label("Search").fill("ACC-91")
    expect(page.get_by_text("No study fits.")).to_be_visible()
    page = reader.sign_in(site.tokens[Role.READ])
    page.clock.install()
    addresses: list[str] = []
    page.on("request", lambda asked: addresses.append(asked.url))
    page.get_by_role("checkbox", name="HIGH").check()
    page.wait_for_url(re.compile("priority=HIGH"))
    page.get_by_label("Search").fill("ACC-92")
    page.clock.run_for(300)
    wait_until(lambda: len(reader.uids()) == 1, WITHIN_S)
    with page.expect_response(f"{site.url}/search") as renewed:
        page.clock.fast_forward(4_500)
    assert renewed.value.status == 200
    wait_until(lambda: len(reader.uids()) == 1, WITHIN_S)
    assert page.url == f"{site.url}/?priority=HIGH"
    assert [one for one in addresses if "ACC" in one or "csrf" in one] == []
    assert page.evaluate("JSON.stringify(history.state)") == "null"


def test_what_is_searched_is_in_no_address_without_a_script_either(
    site: Site, arrive: "Callable[..., Visitor]"
) -> None:
    page = arrive(java_script_enabled=False).sign_in(site.tokens[Role.READ])
    page.get_by_label("Search").fill("ACC-91")
    page.get_by_label("Search").press("Enter")
    page.wait_for_url(f"{site.url}/search")
    assert page.locator("#rows tr").count() == 1
    assert 'http-equiv="refresh"' not in page.content()
    page.goto(page.url)
    assert page.url == site.url + "/"


def test_everything_can_be_reached_by_keyboard(site: Site, visitor: "Visitor", keep: "Keep") -> None:
    page = visitor.sign_in(site.tokens[Role.READ])
    page.reload()
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("j")
    first, second = visitor.uids()[:2]
    assert page.evaluate("document.activeElement.closest('tr').dataset.key") == first
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.closest('tr').dataset.key") == second
    page.keyboard.press("k")
    outline = page.evaluate("getComputedStyle(document.activeElement.closest('tr')).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("p")
    picture = page.locator(f'tr[data-key="{first}"] .heat-picture')
    wait_until(lambda: picture.evaluate("one => one.complete && one.naturalWidth") or False, WITHIN_S)
    page.get_by_role("checkbox", name="Names").focus()
    page.keyboard.press("Space")
    wait_until(lambda: "WALBURGA" in page.locator("#rows").inner_text(), WITHIN_S)
    page.locator(f'tr[data-key="{first}"] a.open').focus()
    keep(page, "page-list")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    expect(page.get_by_label("Search")).to_be_focused()
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/study/"))
    page.keyboard.press("g")
    page.wait_for_url(site.url + "/")


def test_it_works_without_a_script(site: Site, arrive: "Callable[..., Visitor]") -> None:
    visitor = arrive(java_script_enabled=False)
    page = visitor.open()
    assert page.locator("noscript meta[http-equiv=refresh]").count() or 'http-equiv="refresh"' in page.content()

    def only_high() -> bool:  # where the page renews itself between two keys, nothing is chosen any more
        if not page.get_by_role("checkbox", name="HIGH").is_checked():
            page.get_by_role("checkbox", name="HIGH").press("Space")
        enter(page.get_by_role("button", name="Show"))
        page.wait_for_load_state()
        return "priority=HIGH" in page.url

    wait_until(only_high, WITHIN_S)
    wait_until(lambda: set(visitor.words()) == {"HIGH"}, WITHIN_S)
    enter(page.locator("#rows a.open").first)
    expect(page.get_by_role("heading", name="What happened")).to_be_visible()
    enter(page.get_by_role("link", name="Sign in").first)
    page.get_by_label("Access token").fill(site.tokens[Role.OPERATE])
    page.get_by_label("Access token").press("Enter")
    page.wait_for_url(site.url + "/")
    page.goto(f"{site.url}/study/{site.studies['HIGH']}")
    agree = page.get_by_role("button", name="agree", exact=True).first
    enter(agree)
    expect(agree).to_have_attribute("aria-pressed", "true")
    enter(page.get_by_role("button", name="Sign out"))
    expect(page.get_by_role("link", name="Sign in")).to_be_visible()


def enter(what: Locator) -> None:
    """By keyboard. While a document is still coming the focus may be elsewhere by the time the key is."""
    what.page.wait_for_load_state()
    what.press("Enter")
