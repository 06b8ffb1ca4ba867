"""Whose a study is, and what can be changed, is for who signed in; a stranger on this machine sees urgency alone."""

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import httpx
import pytest
from playwright.sync_api import expect
from typer.testing import CliRunner

from ledger.access import Role
from node.cli import app
from tests.support.page_site import SENTINELS, Site

if TYPE_CHECKING:
    from tests.page.conftest import Keep, Visitor


def every_path(site: Site) -> list[str]:
    studies = [f"/study/{uid}" for uid in site.studies.values()]
    return ["/?names=1", "/parked", "/senders", "/models", "/models/chest-pneumonia/1.2.1", "/pace", *studies]


def test_a_stranger_sees_no_identity_on_any_page_and_no_picture(site: Site) -> None:
    for path in every_path(site):
        answer = site.node.get(path)
        assert answer.status_code == 200
        assert [word for word in SENTINELS if word in answer.text] == [], path
    assert site.node.get(f"/study/{site.studies['HIGH']}/picture.png").status_code == 401
    assert site.node.get("/opinions.csv").status_code == 401


def test_who_signed_in_sees_whose_it_is_and_the_trail_says_that_he_did(
    site: Site, visitor: "Visitor", keep: "Keep"
) -> None:
    page = visitor.sign_in(site.tokens[Role.READ])
    uid = site.studies["HIGH"]
    with page.expect_response(f"{site.url}/study/{uid}") as response:
        page.goto(f"{site.url}/study/{uid}")
    assert response.value.headers["cache-control"] == "no-store"
    patient = page.get_by_label("Patient", exact=True)
    expect(patient).to_contain_text("-02-03")
    expect(page.get_by_role("heading", level=1)).to_contain_text("WALBURGA")
    assert page.get_by_role("button", name="agree", exact=True).count() == 0
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url(site.url + "/")
    page.go_back()
    page.reload()
    assert "WALBURGA" not in page.content()
    log = site.node.log.read_text()
    assert [word for word in SENTINELS if word in log] == []


def test_the_pictures_are_the_image_and_the_evidence_over_it(site: Site, visitor: "Visitor", keep: "Keep") -> None:
    page = visitor.sign_in(site.tokens[Role.OPERATE])
    page.goto(f"{site.url}/study/{site.studies['HIGH']}")
    plain, heat = page.locator(".plain-picture").first, page.locator(".heat-picture").first
    colours = """async image => { await image.decode(); const canvas = document.createElement("canvas");
      canvas.width = canvas.height = 64; const pen = canvas.getContext("2d"); pen.drawImage(image, 0, 0, 64, 64);
      const data = pen.getImageData(0, 0, 64, 64).data; let most = 0;
      for (let i = 0; i < data.length; i += 4) most = Math.max(most, Math.abs(data[i] - data[i + 2]));
      return most; }"""
    assert plain.evaluate(colours) == 0
    assert not heat.is_visible()
    page.get_by_label("heat map").first.check(force=True)
    expect(heat).to_be_visible()
    assert not plain.is_visible()
    assert heat.evaluate(colours) > 60
    keep(page, "page-study")


def test_a_token_that_is_no_good_opens_nothing(site: Site, visitor: "Visitor") -> None:
    visitor.expected = ("401",)
    page = visitor.open("/sign-in")
    page.get_by_label("Access token").fill("ot_guessed")
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("#problem")).to_contain_text("not one of this node")
    assert visitor.context.cookies() == []


@pytest.mark.parametrize("role", [Role.READ, Role.OPERATE])
def test_a_request_that_no_page_of_ours_made_changes_nothing(site: Site, role: Role) -> None:
    job = site.park("Nobody is there.")
    with httpx.Client(base_url=site.url, timeout=60) as browser:
        browser.post("/sign-in", data={"token": site.tokens[role]})
        address = f"/parked/{job.job_id}/release"
        found = re.search('name="csrf" value="([0-9a-f]+)"', browser.get("/").text)
        assert found
        assert browser.post(address).status_code == 403
        assert browser.post(address, data={"csrf": "0" * 64}).status_code == 403
        good = {"csrf": found[1]}
        assert browser.post(address, data=good, headers={"Origin": "http://evil.example"}).status_code == 403
        assert any(one.job_id == job.job_id for one in site.node.ledger.parked())
        last = browser.post(address, data=good, headers={"Origin": site.url})
        assert last.status_code == (303 if role is Role.OPERATE else 403)
    site.node.ledger.release(job.job_id)
    assert httpx.post(site.url + address, timeout=60).status_code == 401


def test_a_parked_job_says_why_and_is_released(site: Site, arrive: "Callable[..., Visitor]", keep: "Keep") -> None:
    job = site.park("ARCHIVE refused it: 0xA900, Data Set does not match SOP Class. Ask whoever runs it.")
    stranger = arrive().open("/parked")
    expect(stranger.get_by_text("does not match SOP Class")).to_be_visible()
    assert stranger.get_by_role("button", name="Release").count() == 0
    page = arrive().sign_in(site.tokens[Role.OPERATE])
    expect(page.get_by_role("link", name="Parked")).to_contain_text("1")
    page.get_by_role("link", name="Parked").click()
    keep(page, "page-parked")
    page.get_by_role("button", name=f"Release job {job.job_id}").click()
    expect(page.get_by_text(f"Job {job.job_id} is queued again.")).to_be_visible()
    assert site.node.ledger.parked() == []


def test_an_opinion_becomes_a_table_that_validate_reads(
    site: Site, visitor: "Visitor", tmp_path_factory: pytest.TempPathFactory
) -> None:
    page = visitor.sign_in(site.tokens[Role.OPERATE])
    for priority, said in (("HIGH", "agree"), ("LOW", "agree")):
        page.goto(f"{site.url}/study/{site.studies[priority]}")
        page.get_by_role("button", name=said, exact=True).first.click()
        expect(page.get_by_role("button", name=said, exact=True).first).to_have_attribute("aria-pressed", "true")
        expect(page.get_by_text("1 reader agrees").first).to_be_visible()
    folder = tmp_path_factory.mktemp("opinions")
    table, config = folder / "opinions.csv", str(site.node.config)
    page.goto(f"{site.url}/models")
    with page.expect_download() as download:
        page.get_by_role("link", name="opinions.csv").click()
    download.value.save_as(table)
    text = table.read_text()
    assert [word for word in SENTINELS if word in text] == []
    assert sorted(line.split(",")[3] for line in text.splitlines()[1:]) == ["0", "1"]
    run_cli("opinions", "export", "--out", str(folder / "same.csv"), "--config", config)
    assert (folder / "same.csv").read_text() == text
    run_cli("validate", str(table), "--model", "chest-pneumonia", "--out", str(folder / "figures"), "--figures-only",
            "--draws", "100", "--config", config)  # fmt: skip
    figures = json.loads((folder / "figures" / "validation.json").read_text())
    assert figures["labels"]["pneumonia"]["sensitivity"]["value"] == 1.0
    assert figures["labels"]["pneumonia"]["specificity"]["value"] == 1.0


def run_cli(*arguments: str) -> None:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
