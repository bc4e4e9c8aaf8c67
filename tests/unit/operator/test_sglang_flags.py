"""Arguments that engine sglang gives its servers and router, parsed by SGLang's own code."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sglang_clusters import MOONCAKE, arguments, sglang
from sglang_wheel import needs_sglang

CHECKER = Path(__file__).parents[2] / "support" / "sglang_flags.py"
IMPORT_S = 500
CHANGED: dict[str, dict[str, Any]] = {
    "plain": {},
    "with a cache": {"sharedCacheRef": {"name": "c"}},
    "no offload": {"sharedCacheRef": {"name": "c"}, "offload": {"enabled": False}},
    "all set": {
        "sharedCacheRef": {"name": "c"},
        "transferProtocol": "rdma",
        "model": {
            "claim": {"claim": "m", "path": "a/b"},
            "servedName": "chat",
            "dtype": "bfloat16",
            "contextLength": 4096,
        },
        "sglang": {
            "transferBackend": "nixl",
            "bootstrapPort": 9001,
            "memFractionStatic": 0.7,
        },
        "hicache": {
            "pageSize": 32,
            "sizeGb": 7.2,
            "writePolicy": "write_back",
            "ioBackend": "direct",
            "memLayout": "page_first",
            "prefetchPolicy": "wait_complete",
            "evictionPolicy": "slru",
        },
        "offload": {"sizeGb": 3},
        "prefill": {
            "gpus": 2,
            "tensorParallelSize": 2,
            "maxTotalTokens": 65536,
            "maxRunningRequests": 32,
            "chunkedPrefillSize": 2048,
            "rdma": {"resourceName": "rdma/hca", "devices": ["mlx5_0", "mlx5_1"]},
        },
        "decode": {"gpus": 1, "rdma": {"resourceName": "rdma/hca", "devices": ["mlx5_2"]}},
    },
}
BROKEN = {
    "a flag that is none": ["--hicache-nonsense", "1"],
    "a value that is none": ["--disaggregation-mode", "both"],
    "offload without a storage": [
        *("--disaggregation-mode", "decode"),
        "--disaggregation-decode-enable-offload-kvcache",
    ],
}


@pytest.fixture(scope="module")
def checked() -> dict[str, dict[str, Any]]:
    """What SGLang made of each, by `NAME ROLE`; one process for all."""
    asked = {
        f"{name} {role}": arguments(sglang(**spec), role, [MOONCAKE])
        for name, spec in CHANGED.items()
        for role in ("prefill", "decode")
    }
    asked |= {name: ["--model-path", "m", *words] for name, words in BROKEN.items()}
    done = subprocess.run(
        [sys.executable, CHECKER],
        input="".join(json.dumps(words) + "\n" for words in asked.values()),
        capture_output=True,
        text=True,
        timeout=IMPORT_S,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return dict(zip(asked, answers, strict=True))


@needs_sglang
@pytest.mark.timeout(900)
@pytest.mark.parametrize("role", ["prefill", "decode"])
@pytest.mark.parametrize("name", CHANGED)
def test_sglang_takes_the_arguments(
    checked: dict[str, dict[str, Any]], name: str, role: str
) -> None:
    answer = checked[f"{name} {role}"]
    assert "error" not in answer, answer
    given = answer["given"]
    assert given["disaggregation_mode"] == role
    assert given["port"] == 30000 and given["host"] == "0.0.0.0"
    assert given["enable_metrics"] is True and given["enable_cache_report"] is True
    assert given["admin_api_key"] == "$(KVLOOP_ADMIN_API_KEY)"


@needs_sglang
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", BROKEN)
def test_the_checker_refuses_what_sglang_refuses(
    checked: dict[str, dict[str, Any]], name: str
) -> None:
    assert "error" in checked[name]


@needs_sglang
@pytest.mark.timeout(900)
def test_every_field_arrives_in_sglangs_own(checked: dict[str, dict[str, Any]]) -> None:
    prefill = checked["all set prefill"]["given"]
    wanted = {
        "model_path": "/var/lib/kvloop/model/a/b",
        "served_model_name": "chat",
        "dtype": "bfloat16",
        "context_length": 4096,
        "page_size": 32,
        "tp_size": 2,
        "mem_fraction_static": 0.7,
        "max_total_tokens": 65536,
        "max_running_requests": 32,
        "chunked_prefill_size": 2048,
        "radix_eviction_policy": "slru",
        "disaggregation_transfer_backend": "nixl",
        "disaggregation_bootstrap_port": 9001,
        "disaggregation_ib_device": "mlx5_0,mlx5_1",
        "enable_hierarchical_cache": True,
        "hicache_ratio": None,
        "hicache_size": 8,
        "hicache_write_policy": "write_back",
        "hicache_io_backend": "direct",
        "hicache_mem_layout": "page_first",
        "hicache_storage_prefetch_policy": "wait_complete",
        "hicache_storage_backend": "mooncake",
        "disaggregation_decode_enable_offload_kvcache": False,
    }
    assert {name: prefill[name] for name in wanted} == wanted
    assert json.loads(prefill["hicache_storage_backend_extra_config"])["protocol"] == "tcp"
    decode = checked["all set decode"]["given"]
    wanted = {
        "tp_size": 1,
        "disaggregation_ib_device": "mlx5_2",
        "enable_hierarchical_cache": False,
        "hicache_size": 3,
        "hicache_storage_backend": "mooncake",
        "disaggregation_decode_enable_offload_kvcache": True,
    }
    assert {name: decode[name] for name in wanted} == wanted


@needs_sglang
@pytest.mark.timeout(900)
def test_what_sglang_makes_of_our_defaults(checked: dict[str, dict[str, Any]]) -> None:
    resolved = checked["with a cache prefill"]["resolved"]
    # It takes the direct path where the layout is page_first_direct, as it says in its log.
    assert resolved["hicache_mem_layout"] == "page_first_direct"
    assert resolved["hicache_io_backend"] == "direct"
    assert resolved["hicache_ratio"] == 2.0
    # mooncake_tcp is mooncake without RDMA.
    assert checked["plain prefill"]["given"]["disaggregation_transfer_backend"] == "mooncake_tcp"
    assert checked["plain prefill"]["resolved"]["disaggregation_transfer_backend"] == "mooncake"


@needs_sglang
@pytest.mark.timeout(900)
def test_without_a_storage_or_offload_decode_has_no_host_pool(
    checked: dict[str, dict[str, Any]],
) -> None:
    for name in ("plain", "no offload"):
        given = checked[f"{name} decode"]["given"]
        assert given["hicache_storage_backend"] is None
        assert given["disaggregation_decode_enable_offload_kvcache"] is False
    assert checked["plain prefill"]["given"]["hicache_storage_backend"] is None
    assert checked["no offload prefill"]["given"]["hicache_storage_backend"] == "mooncake"


@pytest.mark.skipif(
    importlib.util.find_spec("sglang_router") is None,
    reason="pip install --no-deps sglang-router==0.3.2 setproctitle==1.3.8",
)
def test_the_routers_own_parser_and_checks_take_its_arguments() -> None:
    from sglang_router.launch_router import parse_router_args  # type: ignore[import-not-found]

    wanted = sglang(router={"maxQueued": 77, "finishSeconds": 33})
    args = parse_router_args(arguments(wanted, "router"))
    args._validate_router_args()
    assert args.pd_disaggregation and args.service_discovery
    assert args.service_discovery_namespace == "ns"
    assert (args.port, args.service_discovery_port) == (8000, 30000)
    assert args.bootstrap_port_annotation == "sglang.ai/bootstrap-port"
    assert args.max_concurrent_requests == 77
    assert args.shutdown_grace_period_secs == 33
    assert args.prometheus_port == 29000
    for role, found in (("prefill", args.prefill_selector), ("decode", args.decode_selector)):
        assert found["app.kubernetes.io/component"] == role
        assert found["app.kubernetes.io/instance"] == "pdc-demo"
        assert len(found["kvloop.dev/revision"]) == 16
