"""The cluster's processes."""

import json
from pathlib import Path

import pytest

from kvloop.cli.main import build_parser
from kvloop.cli.up.config import UpConfig
from kvloop.cli.up.plan import Part, Plan, build_plan, num_inner_ports, pages_directory


def plan_of(config: UpConfig) -> Plan:
    ports = list(range(20001, 20001 + num_inner_ports(config)))
    return build_plan(config, ports, Path("/state/secret"))


def flag(part: Part, name: str) -> str:
    return part.argv[part.argv.index(name) + 1]


def test_mooncake_needs_a_store_that_starts_before_the_others() -> None:
    plan = plan_of(UpConfig())
    assert [part.name for part in plan.parts] == ["store", "prefill-0", "decode-0", "router"]
    assert [part.starts_first for part in plan.parts] == [True, False, False, False]


def test_nodes_find_the_master_where_the_store_listens() -> None:
    store, prefill, *_ = plan_of(UpConfig()).parts
    storage = json.loads(flag(prefill, "--hicache-storage-backend-extra-config"))
    assert storage["master_server_address"] == f"127.0.0.1:{flag(store, '--port')}"


def test_the_file_cache_needs_no_store_and_one_directory_for_all() -> None:
    config = UpConfig(shared_cache="file", prefill=2, decode=3, state_dir=Path("/state"))
    plan = plan_of(config)
    assert len(plan.parts) == 6
    roots = {flag(part, "--hicache-storage-backend-extra-config") for part in plan.parts}
    assert roots == {json.dumps({"root": str(pages_directory(config))})}


@pytest.mark.parametrize("shared_cache", ["mooncake", "file"])
def test_the_router_keeps_what_it_remembers_in_the_nodes_shared_cache(shared_cache: str) -> None:
    config = UpConfig(shared_cache=shared_cache)  # type: ignore[arg-type]
    *_, decode, router = plan_of(config).parts
    assert router.name == "router"
    for name in ("--hicache-storage-backend", "--hicache-storage-backend-extra-config"):
        assert flag(router, name) == flag(decode, name)
    assert flag(router, "--hicache-storage-backend") == shared_cache


def test_no_two_parts_share_a_port() -> None:
    plan = plan_of(UpConfig(prefill=3, decode=3))
    ports = [flag(part, "--port") for part in plan.parts]
    ports.append(flag(plan.parts[0], "--metrics-port"))
    assert len(set(ports)) == len(ports)


@pytest.mark.parametrize("shared_cache", ["mooncake", "file"])
def test_the_parts_are_commands_that_the_parser_knows(shared_cache: str) -> None:
    config = UpConfig(shared_cache=shared_cache)  # type: ignore[arg-type]
    for part in plan_of(config).parts:
        command = part.argv[part.argv.index("kvloop.cli") + 1 :]
        assert build_parser().parse_args(command).port


def test_nodes_and_router_share_a_secret() -> None:
    parts = [part for part in plan_of(UpConfig()).parts if part.name != "store"]
    assert {flag(part, "--node-secret-file") for part in parts} == {"/state/secret"}


def test_the_state_directory_differs_by_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/s")
    assert UpConfig(port=9000).directory == Path("/s/kvloop/up-9000")
    assert UpConfig(state_dir=Path("/own")).directory == Path("/own")


def test_an_api_on_all_addresses_is_reached_on_loopback() -> None:
    assert UpConfig(host="0.0.0.0").url == "http://127.0.0.1:8000"
    assert UpConfig(host="::1").url == "http://[::1]:8000"
