"""The page in a real browser, as a reader uses it."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from browsing import Opened, browser
from fake_run import FakeRun

from bench.report import render_report

__all__ = ["browser"]
HOSTILE = '"><img src=x onerror="document.title=1"> <b>שלום</b> \u202e'


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of two subsets, three methods and two seeds, with prompts that are markup."""
    run = FakeRun(tmp_path_factory.mktemp("runs") / "demo", per_group=2, signs=2)
    run.experiment["suite"]["metrics"].append(
        {**run.experiment["suite"]["metrics"][3], "name": "light", "label": "Light", "ranked": False}
    )
    run.base()
    for subset in ("pretty", "matching"):
        for seed in (0, 1):
            run.job("alpha", 0.02, subset=subset, seed=seed)
            run.job("beta", 0.30, subset=subset, seed=seed)
            run.job("gamma", 0.10, subset=subset, seed=seed, reward="style")
    for path in run.folder.glob("*/evaluations/*/samples.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            row["prompt"] += HOSTILE
            if "style" in row["scores"]:
                row["scores"]["light"] = row["scores"]["style"]
                passes = {"version": 1, "score": float(row["scores"]["geneval"]["score"] > 0.7)}
                row["scores"]["geneval"] = passes | ({"seen": "2 red star" + HOSTILE} if "beta" in str(path) else {})
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path_factory.mktemp("reports") / "demo"
    render_report([run.folder], out)
    return out / "index.html"


def texts(found: Any) -> list[str]:
    return [text.strip() for text in found.all_inner_texts()]


def shown_rows(page: Any, subset: str) -> list[str]:
    table = page.locator(f'table.main[data-subset="{subset}"] tbody tr:visible')
    return [row.get_attribute("data-row") for row in table.all()]


def test_it_opens_without_an_error_and_asks_for_nothing_but_its_pictures(browser: Any, report: Path) -> None:
    with Opened(browser, report) as opened:
        opened.draw_everything()
        assert opened.errors == []
        beside = report.parent.as_uri() + "/"
        assert {url.removeprefix(beside).split("/")[0] for url in opened.asked} <= {"index.html", "pictures"}
        assert opened.page.locator("#forest svg[role=img]").count() == 4  # two metrics, two subsets
        assert opened.page.locator("#tradeoff-charts svg[role=img]").count() == 2
        assert opened.page.locator("#dynamics-charts svg[role=img]").count() == 8
        assert opened.page.locator("#power-charts svg[role=img]").count() == 4
        assert opened.page.title() == "demo"  # no prompt ran


def test_a_click_sorts_the_leaderboard(browser: Any, report: Path) -> None:
    with Opened(browser, report) as opened:
        button = opened.page.locator('table.main[data-subset="pretty"] [data-sort="geneval"]')
        button.click()
        assert shown_rows(opened.page, "pretty") == ["beta", "gamma", "alpha", "base"]
        assert shown_rows(opened.page, "matching")[0] == "beta"
        button.click()
        assert shown_rows(opened.page, "pretty") == ["base", "alpha", "gamma", "beta"]
        assert opened.page.locator('table.main [aria-sort="ascending"]').count() == 2
        button.click()
        assert shown_rows(opened.page, "pretty") == ["base", "alpha", "beta", "gamma"]


def test_a_hidden_method_is_hidden_everywhere_and_the_address_says_so(browser: Any, report: Path) -> None:
    with Opened(browser, report) as opened:
        opened.draw_everything()
        assert "beta" in " ".join(texts(opened.page.locator(".questions")))
        opened.page.locator('[data-hide="beta"]').uncheck()
        assert shown_rows(opened.page, "matching") == ["base", "alpha", "gamma"]
        assert "beta" not in " ".join(texts(opened.page.locator(".questions")))
        for chart in opened.page.locator("svg[role=img]").all():
            assert "beta" not in (chart.get_attribute("aria-label") or "")
        address = opened.page.url.partition("index.html")[2]
    with Opened(browser, report, address) as opened:
        assert shown_rows(opened.page, "pretty") == ["base", "alpha", "gamma"]


def test_the_reader_chooses_what_rows_are_held_against(browser: Any, report: Path) -> None:
    with Opened(browser, report) as opened:
        opened.draw_everything()
        opened.page.locator('select[data-key="ref"]').select_option("beta")
        assert texts(opened.page.locator(".reference")) == ["beta", "beta"]
        questions = texts(opened.page.locator("section.subset .questions").first.locator("li"))
        assert len(questions) == 3 and all(" against beta" in text for text in questions)
        assert "minus beta" in opened.page.locator("#forest figcaption").first.inner_text()


def test_from_a_verdict_to_the_pictures_that_decide_it(browser: Any, report: Path) -> None:
    with Opened(browser, report) as opened:
        page = opened.page
        verdict = page.locator('li[id="verdict-matching-beta-alpha"]')
        assert "beta against alpha at equal FLOPs" in verdict.inner_text()
        verdict.locator(".to-pictures").click()
        cards = page.locator("#browser .card")
        cards.first.wait_for()
        assert "beta against alpha on Aesthetic" in page.locator("#browser-count").inner_text()
        gaps = [card.locator("figcaption div:first-of-type").all_inner_texts() for card in cards.all()]
        apart = [abs(float(a.split()[-1]) - float(b.split()[-1])) for a, b in gaps]
        # The scores are shown with three digits, so a difference of two may be off by one in the last.
        assert apart[0] > 0 and all(one >= other - 0.0011 for one, other in pairwise(apart))
        toolbar, heading = (page.locator(at).bounding_box() for at in ("#rows", "#samples"))
        assert heading["y"] >= toolbar["y"] + toolbar["height"]  # what follows the heading is not covered either
        one, other = (cards.first.locator(".tile").nth(i).bounding_box() for i in (0, 1))
        assert one["y"] == other["y"] and one["x"] < other["x"]  # side by side
        image = cards.first.locator("img").first
        assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
        tile = cards.first.locator(".tile").first.bounding_box()
        assert tile["width"] >= 128  # twice the 64 px of a picture, or more
        page.locator('#browser select[data-key="only"]').select_option("loss")
        wins = page.locator("#browser .card.win").count()
        assert wins == 0
        tasks = page.locator('#browser select[data-key="task"] option').count()
        assert tasks == 1 + 7  # all, six tasks and the signs


def test_a_link_to_one_sample_opens_it(browser: Any, report: Path) -> None:
    address = "#samples?subset=pretty&a=gamma&b=base&by=clip&prompt=scenes%2Fcounting-1&noise=1"
    with Opened(browser, report, address) as opened:
        cards = opened.page.locator("#browser .card")
        cards.first.wait_for()
        assert cards.count() == 1
        assert "gamma against base on ClipScore" in opened.page.locator("#browser-count").inner_text()
        heading = cards.first.locator("h3").inner_text()
        assert '"><img src=x onerror=' in heading and "<b>שלום</b>" in heading  # text stays text
        assert cards.first.locator("h3 img, h3 b").count() == 0


def test_a_picture_says_what_passes_and_what_was_seen(browser: Any, report: Path) -> None:
    address = "#samples?subset=pretty&a=beta&b=alpha&by=clip&prompt=scenes%2Fcounting-1&noise=1"
    with Opened(browser, report, address) as opened:
        card = opened.page.locator("#browser .card")
        card.wait_for()
        of_beta, of_alpha = (
            figure.locator("figcaption div").all_inner_texts() for figure in card.locator("figure").all()
        )
        assert of_beta[0].startswith("ClipScore 0.") and of_alpha[0].startswith("ClipScore 0.")
        assert of_beta[1].startswith(
            ('GenEval pass, saw 2 red star"><img src=x', 'GenEval fail, saw 2 red star"><img src=x')
        )
        assert of_alpha[1:] in (["GenEval pass"], ["GenEval fail"])  # of a record without words
        assert opened.errors == [] and card.locator("figcaption img").count() == 0
        alt = card.locator("img").first.get_attribute("alt")
        assert "ClipScore 0." in alt and "saw 2 red star" in alt


def test_drift_is_folded_away_and_tasks_unfold(browser: Any, report: Path) -> None:
    with Opened(browser, report) as opened:
        page = opened.page
        assert not page.locator('th[data-metric="light"]').first.is_visible()
        page.locator("[data-drift]").click()
        assert page.locator('th[data-metric="light"]').first.is_visible()
        page.locator('[data-unfold="geneval"]').click()
        heads = texts(page.locator('table.main[data-subset="pretty"] th.task'))
        assert heads == ["attribution", "colors", "counting", "position", "single", "two"]
        cell = page.locator('table.main[data-subset="pretty"] tr[data-row="beta"] td[data-metric="ocr"]')
        cell.focus()
        hint = page.locator("#hint").inner_text()
        assert "95 % interval" in hint and "n of N: 8/8" in hint and "seed 1:" in hint


def test_without_scripts_it_is_its_tables(browser: Any, report: Path) -> None:
    with Opened(browser, report, java_script_enabled=False) as opened:
        assert shown_rows(opened.page, "pretty") == ["base", "alpha", "beta", "gamma"]
        assert opened.page.locator("#differences table").count() == 2
        assert not opened.page.locator(".scripted:visible").count()


@pytest.mark.parametrize("width", [1440, 420])
def test_nothing_is_wider_than_the_window(browser: Any, report: Path, width: int) -> None:
    with Opened(browser, report, width=width) as opened:
        opened.draw_everything()
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_print_clips_no_column_and_shows_what_is_folded(browser: Any, report: Path) -> None:
    with Opened(browser, report, width=1040) as opened:  # A4 across, without margins, at 96 px to the inch
        opened.page.emulate_media(media="print")
        opened.draw_everything()
        clipped = opened.page.evaluate(
            "[...document.querySelectorAll('.wide')].filter(e => e.offsetParent && e.scrollWidth > e.clientWidth + 1)"
            ".map(e => e.getAttribute('aria-label'))"
        )
        assert clipped == []
        assert opened.page.locator("#compute table").is_visible()
        assert len(opened.page.pdf(prefer_css_page_size=True)) > 10_000


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser: Any, report: Path, scheme: str) -> None:
    with Opened(browser, report, color_scheme=scheme) as opened:
        opened.draw_everything()
        assert opened.axe() == []


REPORTS = Path(__file__).parents[4] / "reports" / "reference"


@pytest.mark.parametrize("page", sorted(REPORTS.glob("*/index.html")), ids=lambda page: page.parent.name)
def test_axe_finds_nothing_in_a_committed_report(browser: Any, page: Path) -> None:
    with Opened(browser, page) as opened:
        opened.draw_everything()
        assert opened.errors == [] and opened.axe() == []
