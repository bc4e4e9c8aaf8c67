"""The page as a browser shows it: nothing asked for, every plot drawn and readable."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from bench_reports import make_report
from chromium import Tab, open_tab

from kvloop.benchmark.outlets.files import write_json
from kvloop.benchmark.page.render import render_page
from kvloop.benchmark.results.document import Report
from kvloop.cli.main import main

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

FIGURES = """
[...document.querySelectorAll('figure')].map(figure => {
  const svg = figure.querySelector('.picture svg');
  const box = figure.getBoundingClientRect();
  const shapes = 'circle, rect, path, line';
  const clip = {x: box.x + scrollX, y: box.y + scrollY, width: box.width, height: box.height};
  if (!svg) return {name: figure.id, clip, note: figure.querySelector('.note').innerText};
  const all = svg.getBoundingClientRect();
  const texts = [...svg.querySelectorAll('text')].map(text => {
    const r = text.getBoundingClientRect();
    return {words: text.textContent, left: r.left - all.left, right: all.right - r.right,
            top: r.top - all.top, bottom: all.bottom - r.bottom,
            x0: r.left, x1: r.right, y0: r.top, y1: r.bottom};
  });
  const marks = [...svg.querySelectorAll(shapes)].filter(mark => {
    const r = mark.getBoundingClientRect();
    return mark.closest('title') === null && r.width + r.height > 0;
  });
  return {name: figure.id, clip, texts, marks: marks.length};
})
"""
HIDE = (
    "document.querySelectorAll('.picture svg').forEach(svg => svg.setAttribute('visibility', '%s'))"
)


@cache
def four() -> Report:
    return make_report(1, conversations=10, turns=6)


REPORTS: dict[str, Callable[[], Report]] = {
    "four arms": four,
    "one arm": lambda: make_report(2, arms=("on",), conversations=6),
    "sweep": lambda: make_report(
        3, arms=("on", "bypassed"), rates=(1.0, 2.0, 4.0), conversations=8, turns=4
    ),
    "all failed": lambda: make_report(4, fail_share=1.0, conversations=8),
    "some failed": lambda: make_report(5, arms=("on", "bypassed"), fail_share=0.1),
    "another server": lambda: make_report(
        6, arms=("on", "all_miss"), has_sources=False, has_hits=False, conversations=8, turns=3
    ),
    "5,000 requests": lambda: make_report(
        7, arms=("on", "bypassed"), conversations=125, turns=20, clients=16
    ),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tab(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Tab]:
    async with open_tab(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@cache
def page_of(kind: str) -> str:
    return render_page(REPORTS[kind]())


async def open_report(tab: Tab, report: Report | str, folder: Path) -> None:
    """A report, or the kind of one."""
    page = folder / "page.html"
    page.write_text(page_of(report) if isinstance(report, str) else render_page(report))
    tab.requested.clear()
    tab.complaints.clear()
    await tab.open(page.as_uri())


def overlap(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return bool(
        min(a["x1"], b["x1"]) - max(a["x0"], b["x0"]) > 1
        and min(a["y1"], b["y1"]) - max(a["y0"], b["y0"]) > 3
    )


def check_readable(figure: dict[str, Any]) -> None:
    texts = figure["texts"]
    clipped = [t for t in texts if min(t["left"], t["right"], t["top"], t["bottom"]) < -0.5]
    assert not clipped, f"{figure['name']}: {[t['words'] for t in clipped]} are cut off"
    touching = [
        (a["words"], b["words"])
        for n, a in enumerate(texts)
        for b in texts[n + 1 :]
        if overlap(a, b)
    ]
    assert not touching, f"{figure['name']}: {touching} touch"


@pytest.mark.parametrize("kind", REPORTS)
async def test_the_browser_has_no_complaint_and_asks_for_nothing(
    kind: str, tab: Tab, tmp_path: Path
) -> None:
    await open_report(tab, kind, tmp_path)
    assert tab.complaints == []
    assert [url for url in tab.requested if not url.endswith("/page.html")] == []


async def test_a_page_that_asks_and_complains_is_found_out(tab: Tab, tmp_path: Path) -> None:
    page = page_of("all failed").replace("<main>", "<main><img src='http://a.test/'>")
    (tmp_path / "page.html").write_text(page)
    tab.requested.clear()
    tab.complaints.clear()
    await tab.open((tmp_path / "page.html").as_uri())
    assert "Content Security Policy" in " ".join(tab.complaints)
    free = page.replace("default-src 'none'", "default-src *")
    (tmp_path / "free.html").write_text(free)
    await tab.open((tmp_path / "free.html").as_uri())
    assert "http://a.test/" in tab.requested


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("kind", REPORTS)
async def test_every_plot_has_marks_and_no_label_is_cut_off_or_touches_another(
    kind: str, width: int, tab: Tab, tmp_path: Path
) -> None:
    await open_report(tab, kind, tmp_path)
    await tab.show(width=width)
    figures = await tab.ask(FIGURES)
    assert len(figures) >= 7
    for figure in figures:
        if "note" in figure:
            assert len(figure["note"]) > 20
            continue
        assert figure["marks"] > 3 and len(figure["texts"]) > 3
        check_readable(figure)


@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
async def test_every_plot_is_seen(is_dark: bool, tab: Tab, tmp_path: Path) -> None:
    await open_report(tab, "four arms", tmp_path)
    await tab.show(width=1280, is_dark=is_dark)
    for figure in await tab.ask(FIGURES):
        drawn = await tab.picture(figure["clip"])
        await tab.ask(HIDE % "hidden")
        empty = await tab.picture(figure["clip"])
        await tab.ask(HIDE % "visible")
        assert len(drawn) > 1.3 * len(empty), figure["name"]


async def test_dark_is_dark_and_light_is_light(tab: Tab, tmp_path: Path) -> None:
    await open_report(tab, "four arms", tmp_path)
    colours = []
    for is_dark in (False, True):
        await tab.show(width=800, is_dark=is_dark)
        colours.append(await tab.ask("getComputedStyle(document.body).backgroundColor"))
    assert colours == ["rgb(255, 255, 255)", "rgb(20, 23, 27)"]


@pytest.mark.parametrize("kind", ["four arms", "some failed"])
async def test_a_narrow_window_scrolls_in_one_direction_only(
    kind: str, tab: Tab, tmp_path: Path
) -> None:
    await open_report(tab, kind, tmp_path)
    await tab.show(width=400)
    assert await tab.ask("document.documentElement.scrollWidth") <= 400


async def test_a_servers_words_do_not_run(tab: Tab, tmp_path: Path) -> None:
    evil = "<img src=x onerror='document.title=1'><script>document.title=2</script>"
    report = replace(four(), title=evil, warnings=(evil,))
    await open_report(tab, report, tmp_path)
    assert await tab.ask("document.title") == f"{evil}: kvloop bench"
    assert tab.complaints == []


async def test_bench_page_writes_the_page_of_a_report(tab: Tab, tmp_path: Path) -> None:
    write_json(four(), tmp_path / "report.json")
    written = tmp_path / "page.html"
    assert main(["bench", "page", str(tmp_path / "report.json"), str(written)]) == 0
    await tab.open(written.as_uri())
    assert "With reuse the first token" in await tab.ask("document.body.innerText")
