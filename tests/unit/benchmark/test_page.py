"""The page as a whole: one file, nothing loaded, nothing of a server's words run."""

import base64
import hashlib
import re
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser

import pytest
from bench_reports import make_report

from kvloop.benchmark.page.render import render_page
from kvloop.benchmark.page.tables import MOST_FAILURES
from kvloop.benchmark.results.document import Report
from kvloop.benchmark.sample import Failure

SMALL = {"conversations": 8, "turns": 3}
EVIL = "<script>alert(1)</script><img src=x onerror='alert(2)'>\"'&"


@cache
def four() -> Report:
    return make_report(1, **SMALL)


@cache
def sweep() -> Report:
    return make_report(1, arms=("on", "bypassed"), rates=(1.0, 2.0), **SMALL)


class Reader(HTMLParser):
    """Tags, their attributes, and the text between."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).replace("\u00a0", " ").split())


def read(report: Report) -> Reader:
    return Reader(render_page(report))


def hostile() -> Report:
    """Every word that a server or a user chose is an attack."""
    base = four()
    failure = Failure(conversation=0, turn=1, kind=EVIL, message=EVIL, arm="on")
    arm = replace(base.arms[0], errors={EVIL: 1}, fallbacks={EVIL: 1})
    return replace(
        base,
        title=EVIL,
        command=EVIL,
        hardware=EVIL,
        version=EVIL,
        started_at=EVIL,
        server=replace(base.server, url=EVIL, model=EVIL, name=EVIL),
        workload={EVIL: EVIL, "kind": EVIL, "list": [EVIL]},
        ceiling=replace(base.ceiling, words=EVIL) if base.ceiling else None,
        arms=(arm, *base.arms[1:]),
        claims=tuple(replace(claim, words=EVIL, name=EVIL) for claim in base.claims),
        savings=replace(base.savings, how=EVIL) if base.savings else None,
        driver=replace(base.driver, words=EVIL) if base.driver else None,
        warnings=(EVIL,),
        failures=(failure,),
    )


def test_words_of_a_server_are_text_and_never_tags() -> None:
    reader = read(hostile())
    names = {tag for tag, _ in reader.tags}
    assert not names & {"script", "img", "iframe", "object", "embed", "link", "base", "form"}
    assert not [a for _, attrs in reader.tags for a in attrs if a.startswith("on")]
    assert reader.text.count("<script>alert(1)</script>") > 10


def test_the_page_loads_nothing() -> None:
    page = render_page(four())
    attributes = {name for _, attrs in Reader(page).tags for name in attrs}
    assert not attributes & {"src", "href", "action", "data", "poster", "style"}
    assert "url(" not in page and "@import" not in page


def test_its_policy_forbids_all_but_its_own_style_sheet() -> None:
    page = render_page(four())
    policy = next(a["content"] for _, a in Reader(page).tags if "http-equiv" in a)
    style = page[page.index("<style>") + 7 : page.index("</style>")]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'"


def test_the_verdict_comes_before_plots_and_warnings_before_the_verdict() -> None:
    page = render_page(replace(four(), warnings=("mind this",)))
    order = [page.index(f'id="{name}"') for name in ("alarms", "verdict", "plots", "tables")]
    assert order == sorted(order)


def test_warnings_are_two_lists_the_problems_first() -> None:
    page = render_page(replace(four(), warnings=("mind this", "NO REUSE: at all", "and that")))
    alarms = page[page.index('id="alarms"') : page.index('id="verdict"')]
    levels = [part.partition('"')[0] for part in alarms.split('<div class="alarm ')[1:]]
    assert levels == ["bad", "warning"]
    assert "<strong>Problem</strong>" in alarms and "<strong>Notes</strong>" in alarms
    assert alarms.count("<li>") == 3


def test_a_title_that_says_the_kind_is_not_said_twice() -> None:
    kind = f"kvloop bench {four().workload['kind']}"
    page = render_page(replace(four(), title=kind))
    assert 'class="kicker"' not in page
    assert f'<p class="kicker">{kind}</p>' in render_page(four())


def test_a_negative_saving_is_explained_below_its_table() -> None:
    saved = four().savings
    assert saved and "Below 0" not in read(four()).text
    lost = replace(saved, gpu_s=-abs(saved.gpu_s))
    assert "Below 0: the arm took more than" in read(replace(four(), savings=lost)).text


def test_plots_stand_in_the_order_of_the_page() -> None:
    ids = [a["id"] for tag, a in read(four()).tags if tag == "figure"]
    assert ids == [
        "ttft-by-turn",
        "hit-rate-on",
        "hit-rate-l3_only",
        "throughput",
        "ttft-by-length",
        "e2e-by-turn",
        "token-times",
        "timeline",
    ]


def test_without_l3_only_there_is_one_plot_of_hits() -> None:
    ids = [a["id"] for tag, a in read(sweep()).tags if tag == "figure"]
    assert [i for i in ids if i and i.startswith("hit-rate")] == ["hit-rate-on"]


def test_every_plot_is_named_for_those_who_cannot_see_it() -> None:
    pictures = [a for tag, a in read(four()).tags if tag == "svg" and a.get("role") == "img"]
    assert len(pictures) == 8 and all(a["aria-label"] for a in pictures)


@pytest.mark.parametrize(
    "words",
    [
        "TTFT time to first token",
        "ITL inter-token latency",
        "TPOT time per output token",
        "goodput requests that were answered within the objective",
        "kvloop bench multi-turn http://127.0.0.1:8000",
        "2 shared cores, AMD Zen 3, no GPU",
        "schema of the JSON kvloop.bench/2",
        "load: request length 250",
        "cache bypassed ( bypassed ): no tier is read or written",
        "its event loop was late by 0.100 ms (median), 1.30 ms (p99), 4.00 ms (at most)",
        "reusable at most",
        "cache on against cache bypassed TTFT of later turns",
        "What reuse saved",
        "TTFT within 500 ms",
        "cache on, by turn",
        "L3 only, by prompt length",
    ],
)
def test_the_page_holds(words: str) -> None:
    assert words in read(four()).text


def test_a_sweep_has_the_times_the_rates_and_the_goodput_of_each_step() -> None:
    cell = '<td class="words">cache bypassed, 2 requests/s offered</td>'
    assert render_page(sweep()).count(cell) == 3


def test_claims_show_the_ratio_of_medians_and_of_means_with_their_intervals() -> None:
    by_name = {(c.arm, c.control, c.name): c for c in four().claims}
    median = by_name["on", "bypassed", "ttft_later_turns"]
    mean = by_name["on", "bypassed", "ttft_later_turns_mean"]
    row = (
        f"TTFT of later turns {median.value:.3f} {median.low:.3f} to {median.high:.3f} "
        f"{mean.value:.3f} {mean.low:.3f} to {mean.high:.3f} 8"
    )
    assert row in read(four()).text


def test_failures_are_listed_by_kind_and_the_first_with_their_messages() -> None:
    failure = Failure(conversation=7, turn=2, kind="http_429", message="too many", at_s=3.25)
    arm = replace(four().arms[0], errors={"http_429": 30})
    report = replace(four(), failures=(failure,) * 30, arms=(arm, *four().arms[1:]))
    text = read(report).text
    assert "http_429 30 0 0 0" in text
    assert text.count("http_429 too many cache on 3.2 7 2") == MOST_FAILURES
    assert "10 more are in the JSON." in text


def test_a_report_of_nothing_is_a_page_all_the_same() -> None:
    report = make_report(1, fail_share=1.0, **SMALL)
    assert "No request was answered: this run measured nothing." in read(report).text


def test_a_report_without_optional_parts_is_a_page_all_the_same() -> None:
    bare = replace(
        four(), ceiling=None, claims=(), savings=None, driver=None, samples=(), segments=()
    )
    assert "cache on" in read(bare).text


def test_fifty_thousand_requests_make_a_page_below_3_mb() -> None:
    base = four()
    num = 50_000 // len(base.samples) + 1
    report = replace(base, samples=base.samples * num, failures=(FAILED,) * 5000)
    page = render_page(report)
    assert len(page.encode()) < 3_000_000
    assert re.search(r"2,500 of 5\d,\d\d\d requests are drawn", page)


FAILED = Failure(conversation=1, turn=1, kind="connect", message="gone " * 100)
