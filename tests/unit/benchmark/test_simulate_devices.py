"""Devices, models and what both come to."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from kvloop.benchmark.simulate.device import DEVICES, find_device
from kvloop.benchmark.simulate.model_shape import MODELS, read_model
from kvloop.benchmark.simulate.profile import Profile, profile_of, read_profile, write_profile
from kvloop.shared_cache.errors import ConfigError

H100, LLAMA = find_device("h100"), read_model("llama-3.1-8b")


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("llama-3.1-8b", 8.03),
        ("llama-3.1-70b", 70.6),
        ("qwen2.5-7b", 7.62),
        ("qwen2.5-32b", 32.8),
        ("smollm2-135m", 0.1345),
    ],
)
def test_known_models_have_their_size(name: str, billions: float) -> None:
    assert read_model(name).params / 1e9 == pytest.approx(billions, rel=0.01)


def test_a_token_of_an_8b_model_has_128_kib_of_kv() -> None:
    assert profile_of(H100, LLAMA).kv_bytes_per_token == 131072
    assert profile_of(H100, LLAMA, kv_bytes=1.0).kv_bytes_per_token == 65536


@pytest.mark.parametrize(
    ("history", "tokens", "measured_ms"),
    [(16384, 512, 33.3), (16384, 64, 25.8), (4096, 64, 18.0)],
)
def test_the_h100_computes_as_long_as_was_measured(
    history: int, tokens: int, measured_ms: float
) -> None:
    """docs/gpu.md, a long history's first token."""
    seconds = profile_of(H100, LLAMA).prefill_step_s([(tokens, history)])
    assert 1000 * seconds == pytest.approx(measured_ms, rel=0.15)


def test_pages_move_as_fast_as_was_measured() -> None:
    assert profile_of(H100, LLAMA).pcie_bytes_per_s == pytest.approx(50.4e9, rel=0.05)


@pytest.mark.parametrize("device", DEVICES)
def test_every_device_serves_the_smallest_model(device: str) -> None:
    made = profile_of(find_device(device), MODELS["smollm2-135m"])
    assert made.memory_bytes > 0 and made.prefill_step_s([(100, 0)]) > 0
    assert made.decode_base_s(1) > 0


def test_weights_that_do_not_fit_name_what_would_help() -> None:
    big = read_model("llama-3.1-70b")
    with pytest.raises(ConfigError, match="--devices-per-node"):
        profile_of(H100, big)
    assert profile_of(H100, big, devices_per_node=4).memory_bytes > 0
    assert profile_of(find_device("h200"), big, weight_bytes=1.0).memory_bytes > 0


def test_more_devices_a_node_compute_and_move_more() -> None:
    one, four = (profile_of(H100, LLAMA, devices_per_node=num) for num in (1, 4))
    assert one.prefill_token_s / four.prefill_token_s == pytest.approx(3.6)
    assert four.pcie_bytes_per_s == 4 * one.pcie_bytes_per_s


def test_reading_the_weights_bounds_every_step() -> None:
    quick = profile_of(replace(H100, floor_s=0.0), LLAMA)
    # 15 GB at 70 % of 3.35 TB/s
    assert quick.decode_base_s(1) == pytest.approx(0.0064, rel=0.02)
    assert quick.prefill_step_s([(1, 0)]) == pytest.approx(0.0064, rel=0.02)
    assert quick.decode_base_s(1000) == pytest.approx(0.030, rel=0.1)


def test_an_unknown_device_or_model_lists_those_that_are_known() -> None:
    with pytest.raises(ConfigError, match="h100, h200, a100, l40s, cpu2"):
        find_device("h1000")
    with pytest.raises(ConfigError, match=r"llama-3\.1-8b, llama-3\.1-70b, qwen2\.5-7b"):
        read_model("llama-9")


def test_a_config_json_is_a_model_too(tmp_path: Path) -> None:
    shape = MODELS["smollm2-135m"]
    config = {
        "num_hidden_layers": 30,
        "hidden_size": 576,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "intermediate_size": 1536,
        "vocab_size": 49152,
        "tie_word_embeddings": True,
        "other": [1],
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    for name in (str(tmp_path), str(tmp_path / "config.json")):
        assert replace(read_model(name), name=shape.name) == shape
    (tmp_path / "config.json").write_text(json.dumps({"num_hidden_layers": 2}))
    with pytest.raises(ConfigError, match=r"no config\.json of a dense decoder"):
        read_model(str(tmp_path))


def test_a_profile_is_read_as_it_was_written(tmp_path: Path) -> None:
    made, file = profile_of(H100, LLAMA), tmp_path / "mine.json"
    write_profile(made, file)
    assert read_profile(file) == made
    with pytest.raises(ConfigError, match="--profile-out"):
        write_profile(made, tmp_path / "none" / "mine.json")


@pytest.mark.parametrize("content", ["{}", "no JSON", '{"schema": "kvloop.bench/2"}'])
def test_what_is_no_profile_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "mine.json"
    file.write_text(content)
    with pytest.raises(ConfigError, match=r"--device .*mine.json: no calibrated device"):
        read_profile(file)


def test_a_profile_of_another_schema_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    made: Profile = replace(profile_of(H100, LLAMA), schema="kvloop.bench.device/9")
    write_profile(made, file)
    with pytest.raises(ConfigError, match=r"kvloop\.bench\.device/1"):
        read_profile(file)
