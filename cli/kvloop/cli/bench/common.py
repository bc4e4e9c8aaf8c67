"""Flags that every load against a server has, and the run itself."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvloop.cli import flag_types
from kvloop.shared_cache.errors import ConfigError

if TYPE_CHECKING:
    from kvloop.benchmark.arms import Arm
    from kvloop.benchmark.driver.api import ServedModel
    from kvloop.benchmark.outlets.publish import Outlets
    from kvloop.benchmark.outlets.wanted import Wanted
    from kvloop.benchmark.run import RunConfig
    from kvloop.benchmark.workloads.plan import Workload

API_KEY_VARIABLE = "KVLOOP_API_KEY"
ARM_NAMES = ("on", "bypassed", "l3_only", "all_miss")

EPILOG = f"""\
arms, one after the other in turn, each under a salt of its own:
  on         as users run it
  bypassed   no tier is read or written (kvloop)
  l3_only    L1 and L2 are not read (kvloop)
  all_miss   every prompt begins with something of its own, so that nothing can hit

exit status: 0 if every request was answered, 1 if any failed, the run was cut short or a report
could not be written, 2 if a flag is wrong

environment:
  {API_KEY_VARIABLE}           used where --api-key is not given
  KVLOOP_TERMINATION_LOG   used where --termination-message is not given
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The server's URL and all groups of flags; `run` reads them."""
    _add_server_flags(parser.add_argument_group("server"))
    _add_load_flags(parser.add_argument_group("load"))
    _add_patience_flags(parser.add_argument_group("patience"))
    _add_arm_flags(parser.add_argument_group("arms and objectives"))
    _add_report_flags(parser.add_argument_group("report"))


def run(args: argparse.Namespace, workload: Workload | Callable[[ServedModel], Workload]) -> int:
    """Drive it as the flags say; a function makes the load once the server's model is known."""
    from kvloop.benchmark.outlets.wanted import open_outlets
    from kvloop.benchmark.run import run_bench

    outlets = open_outlets(_wanted(args), os.environ)
    with refusals_told(args):
        config = _config(args, outlets)
    return run_bench(config, workload)


@contextmanager
def refusals_told(args: argparse.Namespace) -> Iterator[None]:
    """What is wrong with flags, as a ConfigError says, is in the termination message too."""
    from kvloop.benchmark.outlets.wanted import tell_refusal

    try:
        yield
    except ConfigError as error:
        tell_refusal(error, _wanted(args), os.environ)
        raise


def _add_server_flags(group: argparse._ArgumentGroup) -> None:
    flag = group.add_argument
    flag("url", type=flag_types.url, metavar="URL", help="server, such as http://127.0.0.1:8000")
    flag("--model", metavar="NAME", help="unset: the first that the server names")
    flag("--api-key", metavar="KEY", help="sent as bearer token")
    flag("--cache-salt", metavar="TEXT", help="begins every salt; unset: new for each run")
    flag(
        "--salting",
        choices=("field", "prompt"),
        default="field",
        help="where salts go: the field cache_salt, or the head of every prompt",
    )
    flag(
        "--extra-body",
        type=flag_types.json_object,
        default={},
        metavar="JSON",
        help="fields of every request beside or instead of the usual ones; or @FILE",
    )
    flag(
        "--drop-field",
        action="append",
        default=[],
        metavar="NAME",
        help="a usual field that this server refuses; may be repeated",
    )
    flag(
        "--arm-body",
        action="append",
        type=_arm_body,
        default=[],
        metavar="ARM=JSON",
        help="fields of an arm's requests, for servers with switches of their own; repeatable",
    )


def _add_load_flags(group: argparse._ArgumentGroup) -> None:
    flag, whole = group.add_argument, flag_types.positive_int
    flag("--clients", type=whole, default=4, metavar="N", help="conversations held at once")
    flag("--max-in-flight", type=whole, metavar="N", help="requests at once; the wait is no TTFT")
    flag(
        "--rate",
        dest="rates",
        type=_rates,
        default=(),
        metavar="R[,R...]",
        help="open loop: requests a second that are offered, several for a sweep",
    )
    flag("--arrival", choices=("poisson", "uniform"), default="poisson", help="of that open loop")
    flag("--warmup", type=flag_types.count, default=1, metavar="N", help="uncounted requests first")
    flag("--pause-s", type=flag_types.not_negative_float, default=0.0, metavar="S", help=_PAUSE)
    flag("--seed", type=flag_types.count, default=0, metavar="N", help="draws words and times")


_PAUSE = "between two arms, for what the server still writes"


def _add_patience_flags(group: argparse._ArgumentGroup) -> None:
    flag, seconds = group.add_argument, flag_types.positive_float
    flag("--timeout-s", type=seconds, default=600.0, metavar="S", help="for one whole answer")
    flag(
        "--stall-timeout-s",
        type=seconds,
        default=120.0,
        metavar="S",
        help="for the next byte of one",
    )
    flag(
        "--retry-429",
        type=flag_types.count,
        default=0,
        metavar="N",
        help="times that a refused request is sent again after its Retry-After",
    )
    flag(
        "--give-up-after",
        type=flag_types.positive_int,
        default=10,
        metavar="N",
        help="lost or silent requests in a row, after which the server is probed",
    )
    flag(
        "--probe-s",
        type=seconds,
        default=10.0,
        metavar="S",
        help="for a probed server to answer at all, or the run is cut short",
    )


def _add_arm_flags(group: argparse._ArgumentGroup) -> None:
    flag = group.add_argument
    flag(
        "--arms",
        type=_arms,
        metavar="ARM,ARM",
        help="unset: on,bypassed of kvloop, on,all_miss of another server",
    )
    flag(
        "--rounds",
        type=flag_types.positive_int,
        metavar="N",
        help="times that arms take turns; unset: as fits",
    )
    flag(
        "--slo-ttft-ms",
        type=flag_types.positive_float,
        metavar="MS",
        help="goodput: the first token within it",
    )
    flag(
        "--slo-tpot-ms",
        type=flag_types.positive_float,
        metavar="MS",
        help="and later tokens on average",
    )
    flag(
        "--gpu-hour-price",
        type=flag_types.positive_float,
        metavar="PRICE",
        help="of one GPU for an hour, to price what reuse saves",
    )
    flag(
        "--node-metrics",
        action="append",
        type=flag_types.url,
        default=[],
        metavar="URL",
        help="of nodes whose seconds are counted; unset: those that a kvloop router names",
    )


def _add_report_flags(group: argparse._ArgumentGroup) -> None:
    flag = group.add_argument
    flag("--title", metavar="TEXT", help="of the report")
    flag("--hardware", metavar="TEXT", help="what the server runs on; unset: this machine")
    flag("--json", type=Path, metavar="FILE", help="write everything measured here")
    flag("--no-samples", action="store_true", help="leave single requests out of --json")
    flag("--html", type=Path, metavar="FILE", help="write the report as one page")
    flag(
        "--termination-message",
        type=Path,
        metavar="FILE",
        help="write the summary here, for a Job's status",
    )
    flag("--config-map", metavar="[NAMESPACE/]NAME", help="write report and page there")


def _arms(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    wrong = [name for name in names if name not in ARM_NAMES]
    if wrong or len(set(names)) != len(names):
        raise argparse.ArgumentTypeError(
            f"must be different ones of {', '.join(ARM_NAMES)}, got {text!r}"
        )
    return names


def _rates(text: str) -> tuple[float, ...]:
    return tuple(flag_types.positive_float(part) for part in text.split(","))


def _arm_body(text: str) -> tuple[str, dict[str, Any]]:
    name, _, body = text.partition("=")
    if name not in ARM_NAMES:
        raise argparse.ArgumentTypeError(f"must be ARM={{...}}, ARM one of {', '.join(ARM_NAMES)}")
    return name, flag_types.json_object(body)


def _config(args: argparse.Namespace, outlets: Outlets) -> RunConfig:
    from kvloop.benchmark.driver.options import DriveOptions
    from kvloop.benchmark.results.goodput import Objectives
    from kvloop.benchmark.run import RunConfig

    _check_together(args)
    return RunConfig(
        url=args.url,
        model=args.model,
        api_key=args.api_key or os.environ.get(API_KEY_VARIABLE) or None,
        run_id=args.cache_salt,
        salting=args.salting,
        extra_body=args.extra_body,
        dropped_fields=frozenset(args.drop_field),
        arm_bodies=_joined(args.arm_body),
        arms=args.arms,
        rates=args.rates,
        rounds=args.rounds,
        options=DriveOptions(
            clients=args.clients,
            max_in_flight=args.max_in_flight,
            warmup=args.warmup,
            timeout_s=args.timeout_s,
            stall_timeout_s=args.stall_timeout_s,
            arrival=args.arrival,
            seed=args.seed,
            retry_429=args.retry_429,
            give_up_after=args.give_up_after,
            probe_s=args.probe_s,
            pause_s=args.pause_s,
        ),
        objectives=Objectives(ttft_ms=args.slo_ttft_ms, tpot_ms=args.slo_tpot_ms),
        price_per_gpu_hour=args.gpu_hour_price,
        node_metrics=tuple(args.node_metrics),
        title=args.title or f"kvloop bench {args.prog.split()[-1]}",
        command=command_line(args.argv),
        hardware=args.hardware,
        outlets=outlets,
    )


def _check_together(args: argparse.Namespace) -> None:
    """Flags that would change nothing, or make one arm of two; raises ConfigError."""
    if args.arrival != "poisson" and not args.rates:
        raise ConfigError(f"--arrival {args.arrival} is of an open loop: give --rate too")
    if args.no_samples and args.json is None:
        raise ConfigError("--no-samples leaves requests out of --json FILE: give that too")
    unused = [arm for arm, _ in args.arm_body if args.arms is not None and arm not in args.arms]
    if unused:
        raise ConfigError(f"--arm-body {unused[0]}=...: {unused[0]} is none of --arms")
    bodies = {"--extra-body": args.extra_body}
    bodies |= {f"--arm-body {arm}=...": body for arm, body in args.arm_body}
    salted = [flag for flag, body in bodies.items() if "cache_salt" in body]
    if salted:
        raise ConfigError(
            f"{salted[0]}: cache_salt keeps the arms apart: begin all salts with --cache-salt"
        )
    kvloop = args.extra_body.get("kvloop")
    if isinstance(kvloop, dict) and "cache" in kvloop:
        raise ConfigError("--extra-body: kvloop.cache is what makes the arms: choose with --arms")


def _joined(bodies: Sequence[tuple[Arm, dict[str, Any]]]) -> dict[Arm, dict[str, Any]]:
    """By arm: of a flag given twice for one, the fields of both."""
    joined: dict[Arm, dict[str, Any]] = {}
    for arm, body in bodies:
        joined.setdefault(arm, {}).update(body)
    return joined


def _wanted(args: argparse.Namespace) -> Wanted:
    from kvloop.benchmark.outlets.wanted import Wanted

    return Wanted(
        json_file=args.json,
        with_samples=not args.no_samples,
        page_file=args.html,
        termination_file=args.termination_message,
        config_map=args.config_map,
    )


def command_line(argv: Sequence[str]) -> str:
    """As typed, the API key left out."""
    words = ["kvloop", *argv]
    for number, word in enumerate(words):
        if word.startswith("--api-key="):
            words[number] = "--api-key=..."
        elif number and words[number - 1] == "--api-key":
            words[number] = "..."
    return shlex.join(words)
