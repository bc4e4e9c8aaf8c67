"""Finding a model's files, and what is said when they are not there."""

from __future__ import annotations

import json

import numpy as np
import pytest
from gguf import GGUFWriter
from tiny_models import save_tiny

from kvloop.engine import model_files
from kvloop.engine.gguf_file import GGUFFile
from kvloop.engine.gguf_model import gguf_config, gguf_names, gguf_tensor, ordered
from kvloop.engine.model_config import ModelConfig
from kvloop.engine.model_files import resolve_model
from kvloop.shared_cache.errors import ConfigError


def write_gguf(path, family="llama", **extra) -> None:
    writer = GGUFWriter(str(path), family)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_feed_forward_length(64)
    writer.add_context_length(128)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tensor("token_embd.weight", np.ones((10, 32), np.float32))
    writer.add_tensor("blk.0.attn_q.weight", np.arange(32 * 32, dtype=np.float32).reshape(32, 32))
    writer.add_tensor("blk.0.attn_v.weight", np.zeros((16, 32), np.float32))
    writer.add_tensor("blk.0.attn_k.weight", np.zeros((16, 32), np.float16))
    for name, tensor in extra.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_directory_is_used_where_it_is(tmp_path):
    save_tiny("llama", tmp_path)
    files = resolve_model(str(tmp_path), "float32")
    assert files.directory == tmp_path
    assert [file.name for file in files.weights] == ["model.safetensors"]


def test_what_does_not_exist_is_said_with_what_would_do(tmp_path):
    with pytest.raises(ConfigError, match=r"does not exist: give a directory.*smollm2"):
        resolve_model(str(tmp_path / "nothing"), "float32")
    with pytest.raises(ConfigError, match=r"has no config\.json"):
        resolve_model(str(tmp_path), "float32")


@pytest.mark.parametrize("content", [b"", b"GGML" + bytes(40), b"GGUF\3\0\0\0" + bytes(3)])
def test_a_file_that_is_no_gguf_is_refused_by_name(tmp_path, content):
    file = tmp_path / "model.gguf"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"model\.gguf"):
        resolve_model(str(file), "float32", tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("config.json"))


def test_a_gguf_cut_short_is_refused_by_name(tmp_path):
    write_gguf(tmp_path / "whole.gguf")
    whole = (tmp_path / "whole.gguf").read_bytes()
    for size in (30, 200, 400):
        (tmp_path / "cut.gguf").write_bytes(whole[:size])
        with pytest.raises(ConfigError, match=r"cut\.gguf is not a whole GGUF file"):
            GGUFFile(tmp_path / "cut.gguf")


def test_gguf_metadata_become_the_config_of_the_same_model(tmp_path):
    write_gguf(tmp_path / "m.gguf")
    config = ModelConfig.from_dict(gguf_config(GGUFFile(tmp_path / "m.gguf")))
    assert (config.hidden, config.heads, config.kv_heads, config.head_size) == (32, 4, 2, 8)
    assert (config.vocab, config.max_position_embeddings) == (10, 128)
    assert config.tie_embeddings
    assert config.rms_eps == pytest.approx(1e-5)


def test_llamas_queries_get_their_rotary_halves_back_in_order(tmp_path):
    write_gguf(tmp_path / "m.gguf")
    file = GGUFFile(tmp_path / "m.gguf")
    rows = gguf_tensor(file, "blk.0.attn_q.weight", gguf_config(file))[:, 0] // 32
    # llama.cpp interleaves (0, 4), (1, 5), ... of each head of 8 rows.
    assert rows[:8].tolist() == [0, 2, 4, 6, 1, 3, 5, 7]
    assert rows[8:16].tolist() == [8, 10, 12, 14, 9, 11, 13, 15]


def test_matrices_used_together_are_ordered_side_by_side(tmp_path):
    write_gguf(tmp_path / "m.gguf")
    names = gguf_names(GGUFFile(tmp_path / "m.gguf"))
    at = "model.layers.0.self_attn"
    assert list(ordered(names, 1))[:3] == [f"{at}.{p}_proj.weight" for p in "qkv"]
    assert sorted(ordered(names, 1)) == sorted(names)


def test_gguf_tensors_and_families_without_a_place_are_named(tmp_path):
    write_gguf(tmp_path / "a.gguf", **{"blk.0.ffn_gate_exps.weight": np.zeros((2, 2), np.float32)})
    with pytest.raises(ConfigError, match="ffn_gate_exps"):
        gguf_names(GGUFFile(tmp_path / "a.gguf"))
    write_gguf(tmp_path / "b.gguf", **{"rope_freqs.weight": np.zeros(4, np.float32)})
    with pytest.raises(ConfigError, match="rope_freqs"):
        gguf_config(GGUFFile(tmp_path / "b.gguf"))
    write_gguf(tmp_path / "c.gguf", family="gemma")
    with pytest.raises(ConfigError, match="gemma"):
        gguf_config(GGUFFile(tmp_path / "c.gguf"))


def test_a_failed_conversion_leaves_nothing_that_looks_converted(tmp_path):
    write_gguf(tmp_path / "m.gguf")
    with pytest.raises(ConfigError, match="tokenizer"):
        resolve_model(str(tmp_path / "m.gguf"), "bfloat16", tmp_path / "cache")
    left = [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert left == ["lock"]


def test_an_index_without_a_weight_map_is_refused(tmp_path):
    save_tiny("llama", tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}}))
    with pytest.raises(ConfigError, match="weight_map"):
        resolve_model(str(tmp_path), "float32")


def test_a_model_that_an_image_brings_is_read_there_and_nothing_is_written(tmp_path, monkeypatch):
    write_gguf(tmp_path / "m.gguf")
    monkeypatch.setattr(model_files, "_convert", lambda file, target, dtype: target.mkdir())
    brought = resolve_model(str(tmp_path / "m.gguf"), "bfloat16", tmp_path / "brought").directory
    monkeypatch.setenv(model_files.CONVERTED, str(tmp_path / "brought"))
    found = resolve_model(str(tmp_path / "m.gguf"), "bfloat16", tmp_path / "cache")
    assert found.directory == brought
    assert not (tmp_path / "cache").exists()
    other = resolve_model(str(tmp_path / "m.gguf"), "float32", tmp_path / "cache").directory
    assert other.is_relative_to(tmp_path / "cache")
