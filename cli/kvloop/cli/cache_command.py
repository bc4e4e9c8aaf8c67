"""`kvloop cache`: what a shared cache holds, on any backend, and how to move and thin it out."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import replace

from kvloop.cli import flag_types
from kvloop.cli.cache import values
from kvloop.cli.cache.wanted import Wanted
from kvloop.cli.help_format import HelpFormatter, Subparsers, add_command
from kvloop.shared_cache.errors import ConfigError, KVLoopError
from kvloop.shared_cache.store_tools.address import StoreAddress

_STORES = """\
a store is written as
  file:/PATH              the backend file on that directory
  mooncake:HOST:PORT      the backend mooncake on that master; more of its config behind a ?,
                          such as ?master_metrics_port=9003, where stores are listed
  NAME:{JSON}, NAME:@FILE any backend with its config, as the nodes' extra config has it
  @FILE                   {"backend": NAME, "config": {...}}
or given by --backend NAME --config JSON|@FILE."""

_STATUS = """\
exit status: 0 if all is well, 1 if the store failed or damaged pages were found, 2 if a flag is
wrong"""

_EXAMPLES = {
    "stat": "kvloop cache stat mooncake:10.0.0.5:50051",
    "ls": "kvloop cache ls file:/var/cache/kvloop --namespace 3f2a --limit 20",
    "verify": "kvloop cache verify file:/var/cache/kvloop --sample 1000",
    "evict": "kvloop cache evict file:/var/cache/kvloop --older-than 7d --to 100GiB --dry-run",
    "warm": "kvloop cache warm @chain.json --limit 10000",
    "copy": "kvloop cache copy mooncake:10.0.0.5:50051 file:/backup/kvloop",
}


def add_to(commands: Subparsers) -> None:
    """Add `cache` and what is below it."""
    cache = commands.add_parser(
        "cache", help="look into, verify, copy and thin out a cache", formatter_class=HelpFormatter
    )
    tools = cache.add_subparsers(title="tools", metavar="TOOL", required=True)
    for add in (_add_stat, _add_ls, _add_verify, _add_evict, _add_warm, _add_copy):
        add(tools)


def _add_stat(tools: Subparsers) -> None:
    parser = _tool(
        tools, "stat", _stat, "pages and bytes by namespace", "Shows what a store holds."
    )
    _add_store(parser)
    _add_namespace(parser, "show this one alone")
    _add_output(parser)


def _add_ls(tools: Subparsers) -> None:
    text = "Lists pages, the last used first: key, size, head groups of how many, last use."
    parser = _tool(tools, "ls", _ls, "the pages of a store", text)
    _add_store(parser)
    _add_pages(parser)
    flag = parser.add_argument
    flag("--limit", type=flag_types.count, default=100, metavar="N", help="pages shown; 0: all")
    flag("-q", "--quiet", action="store_true", help="keys alone, as --keys FILE takes them")
    _add_output(parser, "one JSON object a page")


def _add_verify(tools: Subparsers) -> None:
    text = "Reads pages and checks their trailers and checksums."
    parser = _tool(tools, "verify", _verify, "does every page still check?", text)
    _add_store(parser)
    _add_pages(parser)
    flag = parser.add_argument
    flag(
        "--sample",
        type=flag_types.positive_int,
        metavar="N",
        help="pages of each namespace, drawn at random; unset: all",
    )
    flag("--seed", type=flag_types.count, metavar="N", help="draws the sample again as it was")
    flag("--delete", action="store_true", help="remove damaged pages")
    _add_output(parser)


def _add_evict(tools: Subparsers) -> None:
    text = "Removes pages, the least recently used first. Nodes see them as misses and go on."
    parser = _tool(tools, "evict", _evict, "remove pages", text)
    _add_store(parser)
    _add_pages(parser)
    flag = parser.add_argument
    flag(
        "--older-than",
        type=values.duration,
        metavar="AGE",
        help="pages not used for so long, such as 12h or 7d",
    )
    flag(
        "--to",
        type=values.size,
        metavar="SIZE",
        help="as many as must go for the rest to fit, such as 100GiB",
    )
    flag("--all", action="store_true", help="every page and record of the namespaces")
    flag("--dry-run", action="store_true", help="remove nothing, say what would go")
    _add_output(parser)


def _add_warm(tools: Subparsers) -> None:
    text = (
        "Brings pages of a chain's far store into its near one, or of zones' central store into\n"
        "the local one, so that the next request finds them near. Pages that are near are skipped."
    )
    parser = _tool(tools, "warm", _warm, "bring pages into the nearer tier", text)
    _add_store(parser)
    _add_pages(parser)
    parser.add_argument(
        "--limit",
        type=flag_types.positive_int,
        metavar="N",
        help="of each namespace only the N last used pages; unset: all",
    )
    _add_output(parser)


def _add_copy(tools: Subparsers) -> None:
    text = (
        "Copies the pages that DST lacks, bit for bit, and the namespaces' manifests. Pages that\n"
        "do not check are left out. A copy that was stopped goes on when it is run again."
    )
    parser = _tool(tools, "copy", _copy, "move pages between stores", text)
    parser.add_argument("source", type=values.store, metavar="SRC", help="store to read")
    parser.add_argument("target", type=values.store, metavar="DST", help="store to fill")
    parser.set_defaults(store=None, backend=None, config=None)
    _add_deadline(parser)
    _add_pages(parser)
    _add_output(parser)


# --- flags ------------------------------------------------------------------------------------


def _tool(
    tools: Subparsers,
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
    description: str,
) -> argparse.ArgumentParser:
    epilog = f"{_STORES}\n\n{_STATUS}\n\nexample:\n  {_EXAMPLES[name]}"
    return add_command(
        tools,
        name,
        lambda args: _ended(run, args),
        help=summary,
        description=description,
        epilog=epilog,
    )


def _add_store(parser: argparse.ArgumentParser) -> None:
    flag = parser.add_argument
    flag("store", type=values.store, nargs="?", metavar="STORE", help="see below")
    flag(
        "--backend",
        type=values.backend,
        metavar="NAME",
        help="in place of STORE, with --config",
    )
    flag(
        "--config",
        type=flag_types.json_object,
        metavar="JSON|@FILE",
        help="the backend's extra config",
    )
    _add_deadline(parser)


def _add_deadline(parser: argparse.ArgumentParser) -> None:
    flag = parser.add_argument
    flag(
        "--dynamic-modules",
        action="append",
        metavar="MODULE",
        help="module that a dynamic backend may be loaded from; repeat it for several",
    )
    flag(
        "--timeout-s",
        type=flag_types.positive_float,
        default=30.0,
        metavar="S",
        help="longest wait for one answer of a store",
    )


def _add_namespace(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--namespace", type=values.namespace, metavar="HEX", help=text)
    parser.set_defaults(keys=None, shape=None)


def _add_pages(parser: argparse.ArgumentParser) -> None:
    _add_namespace(parser, "this one alone; its first digits will do")
    flag = parser.add_argument
    flag(
        "--keys",
        type=values.keys,
        metavar="FILE",
        help="these pages alone, a key a line; nothing is listed then",
    )
    flag(
        "--shape",
        type=values.shape,
        metavar="JSON|@FILE",
        help="what pages look like where a namespace has no manifest: num_layers, page_size, "
        "num_kv_heads, head_size, itemsize, head_groups, codec",
    )


def _add_output(parser: argparse.ArgumentParser, text: str = "one JSON object") -> None:
    parser.add_argument("--json", action="store_true", help=f"{text} in place of text")


# --- commands ---------------------------------------------------------------------------------


def _stat(args: argparse.Namespace) -> int:
    from kvloop.cli.cache.stat import stat

    return stat(_wanted(args), as_json=args.json)


def _ls(args: argparse.Namespace) -> int:
    from kvloop.cli.cache.ls import ls

    return ls(_wanted(args), limit=args.limit, keys_only=args.quiet, as_json=args.json)


def _verify(args: argparse.Namespace) -> int:
    from kvloop.cli.cache.verify import VerifyFlags, run_verify

    flags = VerifyFlags(
        sample=args.sample, seed=args.seed, is_deleting=args.delete, as_json=args.json
    )
    return run_verify(_wanted(args), flags)


def _evict(args: argparse.Namespace) -> int:
    from kvloop.cli.cache.evict import EvictFlags, run_evict

    flags = EvictFlags(
        older_than_s=args.older_than,
        to_bytes=args.to,
        is_all=args.all,
        is_dry_run=args.dry_run,
        as_json=args.json,
    )
    return run_evict(_wanted(args), flags)


def _warm(args: argparse.Namespace) -> int:
    from kvloop.cli.cache.copy import run_warm

    return run_warm(_wanted(args), limit=args.limit, as_json=args.json)


def _copy(args: argparse.Namespace) -> int:
    from kvloop.cli.cache.copy import run_copy

    target = _with_modules(args.target, args)
    return run_copy(_wanted(args, args.source), target, as_json=args.json)


def _wanted(args: argparse.Namespace, source: StoreAddress | None = None) -> Wanted:
    return Wanted(
        address=_with_modules(source or _store(args), args),
        namespace=args.namespace,
        keys=args.keys,
        shape=args.shape,
        deadline_s=args.timeout_s,
    )


def _store(args: argparse.Namespace) -> StoreAddress:
    store: StoreAddress | None = args.store
    if store is not None and (args.backend or args.config is not None):
        raise ConfigError("give STORE, or --backend and --config, not both")
    if store is not None:
        return store
    if args.backend is None:
        raise ConfigError("give a STORE such as file:/PATH, or --backend NAME --config JSON|@FILE")
    return StoreAddress(backend=args.backend, config=args.config or {})


def _with_modules(store: StoreAddress, args: argparse.Namespace) -> StoreAddress:
    return replace(store, dynamic_modules=tuple(args.dynamic_modules or ()))


def _ended(run: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Run, and end the process at once where a call to a store still hangs."""
    from kvloop.cli.cache.screen import only_our_words
    from kvloop.shared_cache.store_tools.open_store import all_ended

    with only_our_words():
        status = _status(run, args)
        if not all_ended(timeout_s=0):
            sys.stdout.flush()
            os._exit(status)  # a client library's destructors would wait for a store that is gone
    return status


def _status(run: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    try:
        return run(args)
    except BrokenPipeError:  # `kvloop cache ls ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KVLoopError as error:
        print(f"{args.prog}: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        return 130
