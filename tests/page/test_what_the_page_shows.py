"""Every page, in both themes and on a phone: nothing hidden from who cannot see or point, nothing cut off."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import Page, expect
from pynetdicom import AE

from ledger.access import Role
from node import notices
from tests.support import axe
from tests.support.page_site import Site
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.page.conftest import Keep, Visitor
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
PRIVATE = "1.3.12.2.1107.5.9.1"
PHONE = {"width": 390, "height": 844}


def every_path(site: Site) -> list[str]:
    studies = [f"/study/{uid}" for uid in list(site.studies.values())[:2]]
    lists = ["/?names=1", "/parked", "/senders", "/models", "/pace", "/sign-in"]
    return [*lists, "/models/chest-pneumonia/1.2.1", *studies]


@contextmanager
def told(site: Site, **facts: Any) -> Iterator[None]:
    """The analyse role says something else for a while."""
    path = site.node.settings.node.state_dir / "run" / "analyse.json"
    before = path.read_bytes()
    said = notices.read(site.node.settings, "analyse")
    notices.publish(site.node.settings, "analyse", **{**said, **facts})
    try:
        yield
    finally:
        path.write_bytes(before)


def test_every_page_can_be_read_by_who_cannot_see_or_point(site: Site, arrive: "Callable[..., Visitor]") -> None:
    script = axe.script()
    if script is None:
        pytest.skip("axe-core could not be had from the npm registry")
    visitor = arrive(color_scheme="dark")
    page = visitor.sign_in(site.tokens[Role.OPERATE])
    site_words = script.read_text(encoding="utf-8")
    with told(site, refused=["the model package limb 1.0.0 is refused: its hash is another"]):
        for path in every_path(site):
            page.goto(site.url + path)
            page.evaluate(site_words)  # by the browser's own door: the page lets in no script but its own
            assert violations(page, RULES) == [], path
            page.emulate_media(color_scheme="light")
            assert violations(page, ["color-contrast"]) == [], path  # all that the other theme changes
            page.emulate_media(color_scheme="dark")


def violations(page: Page, rules: list[str]) -> list[tuple[str, list[str]]]:
    """Of axe-core's rules, or of those with these tags, and where."""
    found = page.evaluate(f"axe.run(document, {{runOnly: {rules}, resultTypes: ['violations']}})")
    return [(one["id"], [node["html"][:160] for node in one["nodes"]][:3]) for one in found["violations"]]


@pytest.mark.parametrize("screen", [PHONE, {"width": 1280, "height": 800}])
def test_nothing_is_cut_off(site: Site, arrive: "Callable[..., Visitor]", screen: dict[str, int], keep: "Keep") -> None:
    visitor = arrive(viewport=screen)
    page = visitor.sign_in(site.tokens[Role.READ])
    for path in every_path(site):
        page.goto(site.url + path)
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), path
    if screen is PHONE:
        page.goto(site.url + "/")
        keep(page, "page-phone")


def test_what_is_degraded_stands_above_everything_in_plain_words(site: Site, visitor: "Visitor", keep: "Keep") -> None:
    visitor.page.clock.install()
    page = visitor.open()
    assert page.get_by_text("Something needs a person").count() == 0
    with told(site, refused=["the model package limb-fracture 1.0.0 is refused: model.onnx has another hash"]):
        page.clock.fast_forward(4_500)
        expect(page.get_by_label("Needs a person")).to_contain_text("model.onnx has another hash")
        keep(page, "page-banner")
    page.clock.fast_forward(4_500)
    expect(page.get_by_label("Needs a person")).to_have_count(0)


def test_a_study_tells_its_story_with_what_the_reports_say(site: Site, visitor: "Visitor", keep: "Keep") -> None:
    page = visitor.open(f"/study/{site.studies['HIGH']}")
    expect(page.locator("#timeline")).to_contain_text("instance received")
    expect(page.locator("#timeline")).to_contain_text("priority raised")
    page.get_by_text("what it says").first.click()
    expect(page.locator(".tree").first).to_contain_text("Pneumonia")
    expect(page.locator("#reports")).to_contain_text("pacs: delivered 0x0000")
    expect(page.locator("#reports")).to_contain_text("archive")


def test_models_and_pace_are_drawn_with_their_figures(site: Site, visitor: "Visitor", keep: "Keep") -> None:
    page = visitor.open("/models")
    expect(page.get_by_text("serving").first).to_be_visible()
    page.get_by_role("link", name="chest-pneumonia").click()
    expect(page.locator("svg .said").first).to_have_text("0.980 (0.964 to 0.989)")
    expect(page.get_by_role("heading", name="How it was made")).to_be_visible()
    keep(page, "page-model")
    page = visitor.open("/pace")
    expect(page.get_by_role("img", name="Studies received, by hour")).to_be_visible()
    expect(page.get_by_role("row", name="HIGH")).not_to_contain_text("–")


def test_a_sender_whose_contexts_were_refused_is_shown_with_what_to_do(site: Site, visitor: "Visitor") -> None:
    ae = AE(ae_title="OLD_CR")
    ae.add_requested_context(PRIVATE, "1.2.840.10008.1.2")
    ae.add_requested_context("1.2.840.10008.1.1")
    association = ae.associate("127.0.0.1", site.node.port, ae_title="OPENTRIAGE")
    association.release()
    page = visitor.open("/senders")
    sender = page.locator("details.sender", has=page.get_by_text("OLD_CR", exact=True))

    def shown() -> bool:
        page.reload()
        return sender.count() == 1 and "1 refused" in sender.locator("summary").inner_text()

    wait_until(shown, 60, 0.5)
    sender.evaluate("one => { one.open = true; }")
    expect(sender.locator(".lines")).to_contain_text(f'add "{PRIVATE}" to receive.private_sop_classes')
