"""What a ConfigMap has room for. Pure."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from kvloop.benchmark.outlets.files import to_json
from kvloop.benchmark.results.document import Report

LIMIT_BYTES = 1_000_000
"""Of all values; Kubernetes refuses more than 1,048,576."""
MAX_FAILURES = 100
"""Failures kept in a report that must get smaller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """A ConfigMap's values, and what found no room."""

    texts: dict[str, str]
    binaries: dict[str, bytes] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    @property
    def num_bytes(self) -> int:
        """As Kubernetes counts: values, before base64."""
        return sum(len(text.encode()) for text in self.texts.values()) + sum(
            map(len, self.binaries.values())
        )


def fit(report: Report, page: str, summary: bytes, limit: int = LIMIT_BYTES) -> Content:
    """The most that has room: page and single requests first, then ever less of both.

    An empty `page` could not be made, and counts as left out.
    """
    choices = list(_choices(report, page, summary))
    return next((content for content in choices if content.num_bytes <= limit), choices[-1])


def _choices(report: Report, page: str, summary: bytes) -> Iterator[Content]:
    words, pages = {"summary.json": summary.decode()}, _pages(page)
    for json_text, cut in _reports(report):
        for texts, binaries, page_cut in pages:
            yield Content(
                texts=words | {"report.json": json_text} | texts,
                binaries=binaries,
                left_out=(*cut, *page_cut),
            )
    yield Content(texts=words | {"report.json": json_text}, left_out=(*cut, "page"))
    yield Content(texts=words, left_out=("report", "page"))


def _reports(report: Report) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Ever shorter, and what each leaves out."""
    yield to_json(report, indent=0).decode(), ()
    yield to_json(report, with_samples=False, indent=0).decode(), ("samples",)
    if len(report.failures) > MAX_FAILURES:
        fewer = replace(report, failures=report.failures[:MAX_FAILURES])
        cut = ("samples", f"failures beyond {MAX_FAILURES}")
        yield to_json(fewer, with_samples=False, indent=0).decode(), cut


def _pages(page: str) -> list[tuple[dict[str, str], dict[str, bytes], tuple[str, ...]]]:
    """As it is, or zipped."""
    if not page:
        return [({}, {}, ("page",))]
    zipped = gzip.compress(page.encode(), mtime=0)
    return [({"report.html": page}, {}, ()), ({}, {"report.html.gz": zipped}, ())]
