"""`kvloop bench simulate`: a trace through a cluster that nobody has bought yet."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from kvloop.cli import flag_types
from kvloop.cli.help_format import Subparsers, add_command
from kvloop.shared_cache.hicache_names import EvictionPolicy, PrefetchPolicy, WritePolicy

_BYTES = {"bf16": 2.0, "fp8": 1.0, "int8": 1.0, "fp32": 4.0}

_DESCRIPTION = """\
Replays a trace through the real radix tree, pools and policies of as many prefill and decode nodes
as you like, with modelled times of computing, bus, network and shared cache. Hit rates are exact;
times are as good as the device's costs: of its data sheet, or calibrated on a measured run."""

_EPILOG = """\
exit status: 0, 1 if --check is not within --tolerance, 2 if a flag is wrong

examples:
  kvloop bench simulate --trace trace.jsonl --prefill 4 --decode 2 --device h100
  kvloop bench simulate --trace trace.jsonl --sweep prefill=2,4,8 --sweep decode=1,2,4 \\
      --slo-ttft-ms 2000 --slo-tpot-ms 50 --gpu-hour-price 3
  kvloop bench simulate --calibrate run1.json --check run2.json --device cpu2 \\
      --model smollm2-135m --profile-out mine.json"""


def add_to(kinds: Subparsers) -> None:
    """Add `simulate`."""
    parser = add_command(
        kinds,
        "simulate",
        _run,
        help="size a cluster before buying it",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    _add_load_flags(parser.add_argument_group("load"))
    _add_node_flags(parser.add_argument_group("nodes"))
    _add_cache_flags(parser.add_argument_group("cache"))
    _add_run_flags(parser.add_argument_group("calibration"))
    _add_result_flags(parser.add_argument_group("result"))


def _add_load_flags(group: argparse._ArgumentGroup) -> None:
    flag = group.add_argument
    flag("--trace", type=Path, metavar="FILE", help="lines with timestamp, lengths and hash_ids")
    flag("--skip", type=flag_types.count, default=0, metavar="N", help="requests left out first")
    flag("--limit", type=flag_types.positive_int, metavar="N", help="requests; unset: all")
    flag(
        "--time-scale",
        type=flag_types.positive_float,
        default=1.0,
        metavar="X",
        help="2: twice as fast",
    )
    flag(
        "--page-size",
        type=flag_types.positive_int,
        metavar="TOKENS",
        help="of a KV page; unset: the trace's 512, and 16 for --calibrate and --check",
    )
    flag(
        "--hits",
        choices=("as-traced", "as-timed"),
        default="as-traced",
        help="as-traced: all that an earlier request has can be found; as-timed: from when on it "
        "was computed",
    )
    flag(
        "--answers",
        action="store_true",
        help="decode stores answers' pages, as far as later prompts show them",
    )


def _add_node_flags(group: argparse._ArgumentGroup) -> None:
    flag, whole, number = group.add_argument, flag_types.positive_int, flag_types.positive_float
    flag("--prefill", type=whole, default=1, metavar="N", help="prefill nodes")
    flag("--decode", type=whole, default=1, metavar="N", help="decode nodes")
    flag(
        "--device",
        default="h100",
        metavar="NAME|FILE",
        help="h100, h200, a100, l40s, cpu2, or what --profile-out wrote",
    )
    flag(
        "--model",
        metavar="NAME|config.json",
        help="llama-3.1-8b (unset), llama-3.1-70b, qwen2.5-7b, qwen2.5-32b, smollm2-135m, or a "
        "Hugging Face config",
    )
    flag("--devices-per-node", type=whole, default=1, metavar="N", help="that hold one model")
    flag("--weight-dtype", choices=("bf16", "fp8", "fp32"), help="of the weights; unset: bf16")
    flag("--kv-dtype", choices=("bf16", "fp8", "int8", "fp32"), help="of KV pages; the same")
    flag("--device-gib", type=number, metavar="GIB", help="of a node for KV; unset: what is left")
    flag("--pcie-gbps", type=number, metavar="G", help="gigabits/s between device and host memory")
    flag("--chunk-tokens", type=whole, metavar="N", help="prompt tokens of a step, at most")
    flag("--max-running-requests", type=whole, metavar="N", help="of a node at once")
    flag(
        "--network-gbps",
        type=number,
        default=100.0,
        metavar="G",
        help="gigabits/s of each node, each way",
    )


def _add_cache_flags(group: argparse._ArgumentGroup) -> None:
    flag, whole, number = group.add_argument, flag_types.positive_int, flag_types.positive_float
    flag("--l1-pages", type=whole, metavar="N", help="of a prefill node's device")
    flag("--l1-gib", type=number, metavar="GIB", help="the same; unset: all that weights leave")
    flag("--l2-pages", type=whole, metavar="N", help="of a prefill node's host memory")
    flag("--l2-gib", type=number, metavar="GIB", help="the same; unset: twice L1")
    flag("--l3-gib", type=_gib, metavar="GIB", help="of the shared cache; unset: unbounded")
    flag(
        "--l3-gbps",
        type=number,
        default=400.0,
        metavar="G",
        help="gigabits/s of the shared cache as a whole, each way",
    )
    flag("--write-policy", choices=get_args(WritePolicy), default="write_through", help="L1 to L2")
    flag(
        "--write-through-threshold",
        type=whole,
        default=2,
        metavar="USES",
        help="of write_through_selective",
    )
    flag("--eviction-policy", choices=get_args(EvictionPolicy), default="lru", help="of L1 and L2")
    flag(
        "--prefetch-policy",
        choices=get_args(PrefetchPolicy),
        default="best_effort",
        help="how long a prompt waits for L3, as timed",
    )
    flag("--no-offload", action="store_true", help="decode writes nothing to L3")


def _add_run_flags(group: argparse._ArgumentGroup) -> None:
    flag = group.add_argument
    flag(
        "--calibrate", type=Path, metavar="REPORT", help="fit the device's costs to a measured run"
    )
    flag("--profile-out", type=Path, metavar="FILE", help="write the fitted costs here")
    flag("--check", type=Path, metavar="REPORT", help="simulate this run's own requests, compare")
    flag(
        "--tolerance",
        type=flag_types.positive_float,
        default=0.25,
        metavar="SHARE",
        help="by which the median TTFT of --check may differ",
    )


def _add_result_flags(group: argparse._ArgumentGroup) -> None:
    flag, number = group.add_argument, flag_types.positive_float
    flag(
        "--sweep",
        action="append",
        default=[],
        metavar="NAME=V1,V2",
        help="try each value, such as l2-gib=64,128 or prefill=1,2; repeated: all combinations",
    )
    flag("--slo-ttft-ms", type=number, metavar="MS", help="objective of the first token")
    flag("--slo-tpot-ms", type=number, metavar="MS", help="and of later tokens")
    flag(
        "--slo-share",
        type=_share,
        default=0.95,
        metavar="SHARE",
        help="of requests that must meet both",
    )
    flag("--gpu-hour-price", type=number, metavar="PRICE", help="of one device, for an hour")
    flag("--json", type=Path, metavar="FILE", help="write everything here")


def _gib(text: str) -> float | None:
    return None if text == "unbounded" else flag_types.positive_float(text)


def _share(text: str) -> float:
    value = flag_types.positive_float(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 1, got {text!r}")
    return value


def _run(args: argparse.Namespace) -> int:
    from rich.console import Console

    from kvloop.benchmark.simulate.config import ClusterConfig
    from kvloop.benchmark.simulate.result import Objective
    from kvloop.benchmark.simulate.run import SimulateConfig, run_simulate

    cluster = ClusterConfig(
        prefill=args.prefill,
        decode=args.decode,
        l1_pages=args.l1_pages,
        l1_gib=args.l1_gib,
        l2_pages=args.l2_pages,
        l2_gib=args.l2_gib,
        l3_gib=args.l3_gib,
        write_policy=args.write_policy,
        write_through_threshold=args.write_through_threshold,
        eviction_policy=args.eviction_policy,
        prefetch_policy=args.prefetch_policy,
        offloads=not args.no_offload,
        network_gbps=args.network_gbps,
        l3_gbps=args.l3_gbps,
    )
    config = SimulateConfig(
        trace=args.trace,
        calibrate=args.calibrate,
        check=args.check,
        device=args.device,
        model=args.model,
        devices_per_node=args.devices_per_node,
        weight_bytes=_BYTES.get(args.weight_dtype),
        kv_bytes=_BYTES.get(args.kv_dtype),
        device_gib=args.device_gib,
        pcie_gbps=args.pcie_gbps,
        chunk_tokens=args.chunk_tokens,
        max_running_requests=args.max_running_requests,
        cluster=cluster,
        page_size=args.page_size,
        hits="as_timed" if args.hits == "as-timed" else "as_traced",
        answers=args.answers,
        time_scale=args.time_scale,
        skip=args.skip,
        limit=args.limit,
        sweep=tuple(args.sweep),
        objective=Objective(
            ttft_ms=args.slo_ttft_ms, tpot_ms=args.slo_tpot_ms, share=args.slo_share
        ),
        gpu_hour_price=args.gpu_hour_price,
        tolerance=args.tolerance,
        profile_out=args.profile_out,
        json_file=args.json,
    )
    return run_simulate(config, Console(highlight=False))
