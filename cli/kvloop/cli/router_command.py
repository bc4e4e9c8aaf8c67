"""`kvloop router`: the OpenAI front."""

from __future__ import annotations

import argparse
import os
from typing import get_args

from kvloop.cli import cache_flags, flag_types
from kvloop.cli.help_format import Subparsers, add_command
from kvloop.cli.node_command import ADMIN_KEY_VARIABLE
from kvloop.shared_cache.hicache_names import BackendName

_DESCRIPTION = """\
Starts the router: OpenAI's /v1/chat/completions, /v1/completions and /v1/models, and SGLang's
/generate. Nodes register by heartbeat (their --router), or are named here."""

_EPILOG = f"""\
environment:
  {ADMIN_KEY_VARIABLE}   used where --admin-api-key is not given

example:
  kvloop router --port 8000 --prefill http://10.0.0.2:30000 --decode http://10.0.0.3:30000"""


def add_to(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "router",
        _run,
        help="the OpenAI API in front of the nodes",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    _add_server_flags(parser.add_argument_group("server"))
    _add_node_flags(parser.add_argument_group("nodes"))
    _add_access_flags(parser.add_argument_group("access"))
    _add_cache_flags(parser.add_argument_group("shared cache"))
    _add_session_flags(parser.add_argument_group("sessions"))
    _add_canary_flags(parser.add_argument_group("canary"))


def _add_server_flags(group: argparse._ArgumentGroup) -> None:
    flag = group.add_argument
    flag("--host", default="127.0.0.1", help="address to listen on")
    flag("--port", type=flag_types.port, default=8000, help="port to listen on")
    flag("--model", metavar="DIR", help="tokenizer directory; unset: the first ready node's")
    flag("--served-model-name", metavar="NAME", help="name in the API; unset: the nodes'")
    flag(
        "--max-queued",
        type=flag_types.positive_int,
        default=1024,
        metavar="N",
        help="requests in flight; more are answered 429",
    )
    flag(
        "--request-timeout-s",
        type=flag_types.positive_float,
        default=600.0,
        metavar="S",
        help="longest time one request may take",
    )
    flag(
        "--finish-timeout-s",
        type=flag_types.not_negative_float,
        default=5.0,
        metavar="S",
        help="how long SIGTERM waits for open requests",
    )
    flag(
        "--settle-s",
        type=flag_types.not_negative_float,
        default=0.0,
        metavar="S",
        help="how long SIGTERM goes on taking requests before that, until balancers know of it",
    )


def _add_node_flags(group: argparse._ArgumentGroup) -> None:
    for role in ("prefill", "decode"):
        group.add_argument(
            f"--{role}",
            action="append",
            type=flag_types.url,
            default=[],
            metavar="URL",
            help=f"a {role} node; repeat it for several",
        )
    group.add_argument(
        "--node-secret-file", metavar="FILE", help="secret that nodes and router share"
    )
    group.add_argument("--zone", default="", metavar="NAME", help="decode nodes of it go first")


def _add_access_flags(group: argparse._ArgumentGroup) -> None:
    flag = group.add_argument
    flag(
        "--api-keys",
        metavar="FILE",
        help='keys of clients: JSON {"key": "tenant"} or lines "key tenant"; unset: no key needed',
    )
    flag("--admin-api-key", metavar="KEY", help="opens the admin API, refused while there is none")


def _add_cache_flags(group: argparse._ArgumentGroup) -> None:
    flag = group.add_argument
    flag(
        "--hicache-storage-backend",
        choices=get_args(BackendName),
        help="as on the nodes: any router then finds earlier answers' ids; unset: only its own",
    )
    flag(
        "--hicache-storage-backend-extra-config",
        type=flag_types.json_object,
        default={},
        metavar="JSON|@FILE",
        help="settings of that backend, as on the nodes",
    )
    cache_flags.add_attach_file(group)
    flag(
        "--hicache-dynamic-modules",
        action="append",
        default=[],
        metavar="MODULE",
        help="module that a dynamic backend may be loaded from; repeat it for several",
    )
    flag(
        "--history-read-s",
        type=flag_types.positive_float,
        default=0.1,
        metavar="S",
        help="longest time a prompt waits for an earlier answer's ids from there",
    )
    flag(
        "--kv-events",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="let the index of cached prefixes follow the nodes' KV events",
    )


def _add_session_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--session-horizon-s",
        type=flag_types.positive_float,
        default=900.0,
        metavar="S",
        help="a chat that took longer to return did not, where nodes store what selective chooses",
    )


def _add_canary_flags(group: argparse._ArgumentGroup) -> None:
    flag = group.add_argument
    flag(
        "--canary-interval-s",
        type=flag_types.not_negative_float,
        default=0.0,
        metavar="S",
        help="check the whole loop with a two-turn chat so often; 0: only on POST /canary",
    )
    flag(
        "--canary-timeout-s",
        type=flag_types.positive_float,
        default=60.0,
        metavar="S",
        help="longest time of one check",
    )


def _run(args: argparse.Namespace) -> int:
    from kvloop.router.app import run_router
    from kvloop.router.config import RouterConfig

    run_router(
        RouterConfig(
            host=args.host,
            port=args.port,
            model=args.model,
            served_model_name=args.served_model_name,
            prefill=tuple(args.prefill),
            decode=tuple(args.decode),
            api_keys=args.api_keys,
            admin_api_key=args.admin_api_key or os.environ.get(ADMIN_KEY_VARIABLE) or None,
            node_secret_file=args.node_secret_file,
            max_queued=args.max_queued,
            request_timeout_s=args.request_timeout_s,
            finish_timeout_s=args.finish_timeout_s,
            settle_s=args.settle_s,
            zone=args.zone,
            **cache_flags.attached(args, "router"),
            hicache_dynamic_modules=tuple(args.hicache_dynamic_modules),
            history_read_s=args.history_read_s,
            kv_events=args.kv_events,
            session_horizon_s=args.session_horizon_s,
            canary_interval_s=args.canary_interval_s,
            canary_timeout_s=args.canary_timeout_s,
        )
    )
    return 0
