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
    """The most that has room: page and single requests first, then ever less of both."""
    choices = list(_choices(report, page, summary))
    return next((content for content in choices if content.num_bytes <= limit), choices[-1])


def _choices(report: Report, page: str, summary: bytes) -> Iterator[Content]:
    fewer = replace(report, failures=report.failures[:MAX_FAILURES])
    whole, sums, least = (
        to_json(report, indent=0).decode(),
        to_json(report, with_samples=False, indent=0).decode(),
        to_json(fewer, with_samples=False, indent=0).decode(),
    )
    zipped = {"report.html.gz": gzip.compress(page.encode(), mtime=0)}
    words = {"summary.json": summary.decode()}
    cut = ("samples", f"failures beyond {MAX_FAILURES}")
    yield Content(texts=words | {"report.json": whole, "report.html": page})
    yield Content(texts=words | {"report.json": whole}, binaries=zipped)
    yield Content(texts=words | {"report.json": sums, "report.html": page}, left_out=("samples",))
    yield Content(texts=words | {"report.json": sums}, binaries=zipped, left_out=("samples",))
    yield Content(texts=words | {"report.json": least}, binaries=zipped, left_out=cut)
    yield Content(texts=words | {"report.json": least}, left_out=(*cut, "page"))
    yield Content(texts=words, left_out=("report", "page"))
