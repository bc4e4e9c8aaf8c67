"""Tensors: mapped files, sharded directories, random weights, fused views, fingerprints."""

from __future__ import annotations

import shutil

import pytest
import torch
from tiny_models import save_tiny

from kvloop.engine.fingerprint import weights_fingerprint
from kvloop.engine.loaded_model import load_engine_model
from kvloop.engine.model_config import ModelConfig
from kvloop.engine.model_files import resolve_model
from kvloop.engine.safetensors_file import read_safetensors, write_safetensors
from kvloop.engine.weights import dummy_tensors, load_tensors, stacked
from kvloop.shared_cache.errors import ConfigError


def test_a_written_file_reads_back_exactly_and_opens_with_the_safetensors_library(tmp_path):
    from safetensors.torch import load_file

    tensors = {"b": torch.randn(3, 5).bfloat16(), "a": torch.randn(7).bfloat16()}
    shapes = [(name, tensor.shape) for name, tensor in tensors.items()]
    write_safetensors(tmp_path / "x.safetensors", shapes, torch.bfloat16, tensors.values())
    mine, theirs = (
        read_safetensors(tmp_path / "x.safetensors"),
        load_file(tmp_path / "x.safetensors"),
    )
    for name, tensor in tensors.items():
        assert torch.equal(mine[name], tensor) and torch.equal(theirs[name], tensor)


def test_neighbours_in_a_file_are_fused_without_a_copy_and_others_with_one(tmp_path):
    tensors = {name: torch.randn(2, 4) for name in "abc"}
    shapes = [(name, tensor.shape) for name, tensor in tensors.items()]
    write_safetensors(tmp_path / "x.safetensors", shapes, torch.float32, tensors.values())
    read = read_safetensors(tmp_path / "x.safetensors")
    side_by_side = stacked([read["a"], read["b"], read["c"]])
    apart = stacked([read["a"], read["c"]])
    assert side_by_side.data_ptr() == read["a"].data_ptr()
    assert torch.equal(side_by_side, torch.cat([tensors["a"], tensors["b"], tensors["c"]]))
    assert torch.equal(apart, torch.cat([tensors["a"], tensors["c"]]))


def test_a_truncated_weight_file_is_refused_by_name(tmp_path):
    save_tiny("llama", tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ConfigError, match=r"model\.safetensors is not a whole safetensors file"):
        load_engine_model(str(tmp_path), device="cpu")


def test_a_sharded_directory_loads_as_the_whole_one(tmp_path):
    save_tiny("qwen3", tmp_path / "whole")
    save_tiny("qwen3", tmp_path / "sharded", shard="60KB")
    whole, sharded = (resolve_model(str(tmp_path / n), "float32") for n in ("whole", "sharded"))
    assert len(sharded.weights) > 1
    config = ModelConfig.from_dir(whole.directory)
    a, b = (load_tensors(files.weights, config, torch.float32) for files in (whole, sharded))
    assert weights_fingerprint(a) == weights_fingerprint(b)


def test_a_missing_shard_and_a_missing_tensor_are_named(tmp_path):
    save_tiny("llama", tmp_path, shard="60KB")
    files = resolve_model(str(tmp_path), "float32")
    config = ModelConfig.from_dir(tmp_path)
    with pytest.raises(ConfigError, match=r"tensor model\..* is in none of"):
        load_tensors(files.weights[:1], config, torch.float32)
    files.weights[0].unlink()
    with pytest.raises(ConfigError, match=f"names missing files: {files.weights[0].name}"):
        resolve_model(str(tmp_path), "float32")


def test_a_tensor_of_another_shape_is_named_with_both_shapes(tmp_path):
    save_tiny("llama", tmp_path)
    config = (
        (tmp_path / "config.json").read_text().replace('"vocab_size": 160', '"vocab_size": 161')
    )
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ConfigError, match=r"embed_tokens.* has shape \(160, 48\).*\(161, 48\)"):
        load_engine_model(str(tmp_path), device="cpu")


def test_random_weights_depend_on_seed_and_config_only(tmp_path):
    save_tiny("qwen2", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    config = ModelConfig.from_dir(tmp_path)
    one, same, other = (dummy_tensors(config, torch.float32, seed) for seed in (0, 0, 1))
    assert weights_fingerprint(one) == weights_fingerprint(same) != weights_fingerprint(other)
    loaded = load_engine_model(str(tmp_path), load_format="dummy", device="cpu")
    assert loaded.fingerprint == weights_fingerprint(one)
    with pytest.raises(ConfigError, match=r"no \*\.safetensors; or use --load-format dummy"):
        load_engine_model(str(tmp_path), device="cpu")


def test_the_fingerprint_follows_the_weights_and_not_their_path(tmp_path):
    save_tiny("llama", tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    a, b = (load_engine_model(str(tmp_path / n), device="cpu") for n in "ab")
    assert a.fingerprint == b.fingerprint
    cast = load_engine_model(str(tmp_path / "a"), dtype="bfloat16", device="cpu")
    tensors = load_tensors(a.files.weights, a.config, torch.float32)
    tensors["model.norm.weight"] = tensors["model.norm.weight"] + 1
    assert len({a.fingerprint, cast.fingerprint, weights_fingerprint(tensors)}) == 3


def test_auto_dtype_is_bf16_unless_the_config_says_fp32(tmp_path):
    save_tiny("llama", tmp_path / "fp32")
    save_tiny("llama", tmp_path / "bf16", "bfloat16")
    loaded = [load_engine_model(str(tmp_path / n), device="cpu").dtype for n in ("fp32", "bf16")]
    assert loaded == [torch.float32, torch.bfloat16]
