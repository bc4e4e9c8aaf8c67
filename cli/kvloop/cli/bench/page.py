"""`kvloop bench page`: a report that was written as JSON, as an HTML page."""

from __future__ import annotations

import argparse
from pathlib import Path

from kvloop.cli.help_format import Subparsers, add_command

_DESCRIPTION = """\
Draws the page that --html writes, from what --json wrote: one HTML file with verdict, plots and
tables, without scripts, that loads nothing."""

_EPILOG = """\
exit status: 0 if the page was written, 1 if it cannot be written, 2 if REPORT.json is no report

example:
  kvloop bench page result.json result.html"""


def add_to(kinds: Subparsers) -> None:
    """Add `page`."""
    parser = add_command(
        kinds, "page", _run, help="a report as HTML", description=_DESCRIPTION, epilog=_EPILOG
    )
    parser.add_argument("report", type=Path, metavar="REPORT.json", help="what --json wrote")
    parser.add_argument("page", type=Path, metavar="OUT.html", help="replaced if it is there")


def _run(args: argparse.Namespace) -> int:
    from kvloop.benchmark.outlets.files import read_report, write_page
    from kvloop.benchmark.page.render import render_page
    from kvloop.shared_cache.errors import ConfigError, KVLoopError

    if args.page.exists() and args.page.samefile(args.report):
        raise ConfigError(f"{args.page}: is the report itself; name another file for the page")
    page = render_page(read_report(args.report))
    try:
        write_page(page, args.page)
    except OSError as error:
        raise KVLoopError(f"{args.page}: cannot be written: {error.strerror}") from error
    return 0
