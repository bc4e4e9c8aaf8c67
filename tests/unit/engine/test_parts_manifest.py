"""What a node tells of itself in the stores that it uses."""

from pathlib import Path

from decode_engine import LAYERS, PAGE, save_config
from running import wait_for

from kvloop.engine.node_config import NodeConfig
from kvloop.engine.parts import build_parts
from kvloop.shared_cache.manifest import RECORD, decode_manifest


def test_a_nodes_store_says_which_model_its_pages_are_of(tmp_path: Path) -> None:
    config = NodeConfig(
        role="decode",
        model=save_config(tmp_path),
        load_format="dummy",
        dtype="float32",
        device="cpu",
        page_size=PAGE,
        max_total_tokens=8 * PAGE,
        release_tag="blue",
        hicache_storage_backend="file",
        hicache_storage_backend_extra_config={"root": str(tmp_path / "l3")},
    )
    parts = build_parts(config)
    wait_for("the store", lambda: parts.store.is_attached)
    record = wait_for("the manifest", lambda: parts.store.get_small(RECORD))
    parts.mover.close()
    assert parts.store.close()
    manifest = decode_manifest(record, bytes.fromhex(parts.identity.namespace))
    assert manifest is not None and manifest.shape == parts.shape
    assert manifest.shape.num_layers == LAYERS
    assert (manifest.kv_dtype, manifest.release_tag) == ("float32", "blue")
    assert manifest.model == tmp_path.name  # the folder's name, and no path
