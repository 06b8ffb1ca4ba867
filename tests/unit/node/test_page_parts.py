"""What the pages are made of: Markdown that lets nothing through, charts in words, choices, times, a table."""

from pathlib import Path

import pytest
from starlette.datastructures import QueryParams

from ledger.opinions import LabelledImage
from ledger.pace import percentile
from ledger.store import Store
from node.telling.opinions_csv import as_csv
from node.web import charts
from node.web.charts import Interval, Series
from node.web.identities import _date, _person
from node.web.markdown import render
from node.web.model_cards import cards
from node.web.page_choice import Choice
from node.web.page_words import duration, seemly, short_uid
from tests.support.realdata import ROOT


@pytest.mark.parametrize(
    "hostile",
    [
        "<script>alert(1)</script>",
        "# <img src=x onerror=alert(1)>",
        "[a](javascript:alert(1))",
        "| <b> |\n|---|\n| <iframe> |",
        "- <svg onload=x>",
        "`<script>`",
        "**<a href=x>**",
    ],
)
def test_no_markup_of_a_card_reaches_the_page(hostile: str) -> None:
    made = render(hostile)
    for word in ("<script", "<img", "<iframe", "<svg", "<a ", "<b>", "javascript:"):
        assert word not in made


def test_what_our_cards_use_is_rendered() -> None:
    made = render("# T\n\ntwo\nlines, **bold**\n\n- one\n- two\n\n| a | n |\n|---|--:|\n| x | 1 |\n")
    assert made.startswith("<h2>T</h2>\n<p>two lines, <strong>bold</strong></p>")
    assert "<ul><li>one</li><li>two</li></ul>" in made
    assert '<td class="number">1</td>' in made


def test_every_shipped_package_has_a_card_and_figures_with_intervals() -> None:
    from config.settings import LookSettings

    found = {card.manifest.name: card for card in cards(LookSettings(models_dir=ROOT / "models"))}
    assert {"chest-pneumonia", "limb-fracture", "brain-tumour-flair"} <= set(found)
    for card in found.values():
        assert len(card.card()) > 1000
        assert any(one.low is not None for part in card.figures() for one in part.figures)


def test_a_chart_says_in_words_what_it_draws_and_escapes_them() -> None:
    made = charts.bars("Studies", "3 in all.", ["<01>", "02"], [3, 0])
    assert 'role="img"' in made
    assert 'aria-label="Studies. 3 in all."' in made
    assert "&lt;01&gt;: 3" in made
    assert made.count('class="bar"') == 1
    assert "style=" not in made  # the page lets in no style of its own
    lines = charts.lines("Waits", "p95", ["01", "02"], [Series("HIGH", "high", (0.4, None))], duration)
    assert "HIGH, 01: 0.4 s" in lines
    drawn = charts.intervals("F", "w", [Interval("AUC", 0.9, None, None, "0.900")])
    assert "whisker" not in drawn


@pytest.mark.parametrize("hours", [0, 1, 24])
def test_charts_of_nothing_are_drawn(hours: int) -> None:
    labels = [str(i) for i in range(hours)]
    assert "<svg" in charts.bars("a", "b", labels, [0] * hours)
    assert "<svg" in charts.lines("a", "b", labels, [Series("HIGH", "high", (None,) * hours)], duration)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-3, "0.0 s"), (0.44, "0.4 s"), (12, "12 s"), (200, "3 min"), (7500, "2 h 05"), (400_000, "4 d")],
)
def test_durations_are_short(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_the_words_that_no_page_says_are_not_said() -> None:
    assert (
        seemly("priority LOW, too low, Normal priority, normal") == "priority unflagged, too low, routine priority, …"
    )


def test_an_address_that_nobody_made_chooses_nothing() -> None:
    odd = Choice.of(QueryParams("since=ever&priority=LOW&priority=HIGH&state=x&page=-1&q=secret&names=yes"), " a ")
    assert odd == Choice(priorities=("HIGH",), search="a")
    assert Choice.of(QueryParams(odd.address(page=3).partition("?")[2])) == Choice(priorities=("HIGH",), page=3)
    assert Choice().address() == "/"


@pytest.mark.parametrize(
    ("value", "words"),
    [("Doe^Jane^^Dr", "Doe, Jane Dr"), ("=山田^太郎", "山田, 太郎"), ("^^^^", ""), ("Doe", "Doe")],
)
def test_a_persons_name_is_read_by_its_parts(value: str, words: str) -> None:
    assert _person(value) == words
    assert _date("20260230") == ""
    assert _date("20260228") == "2026-02-28"
    assert short_uid("1.2") == "1.2"


def test_a_percentile_is_one_of_the_values() -> None:
    assert percentile([], 0.5) is None
    assert percentile([3.0], 0.95) == 3.0
    assert percentile([float(i) for i in range(1, 101)], 0.95) == 95.0


def test_a_table_of_opinions_leaves_out_what_is_stored_no_more_and_runs_nothing_in_a_spreadsheet(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path)
    store.prepare()
    there = store.put("instances", "ab" * 32, ".dcm", b"x")
    images = [
        LabelledImage(there, "1.2", "p1", "=cmd()", {"pneumonia": True, "tumour": None}, 3, 1),
        LabelledImage("instances/00/gone.dcm", "1.3", "p2", "CT", {"pneumonia": False}, 1, 0),
    ]
    lines = as_csv(images, store).splitlines()
    assert lines == [
        "image,patient,site,pneumonia,tumour,opinions,disagreements",
        f"{store.path(there)},p1,'=cmd(),1,,3,1",
    ]
