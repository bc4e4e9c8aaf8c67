"""Connecting to a Mooncake store as its client."""

from __future__ import annotations

from typing import Any, NamedTuple

from kvloop.shared_cache.backends.mooncake.config import MooncakeConfig
from kvloop.shared_cache.backends.mooncake.environment import environment_is_read
from kvloop.shared_cache.backends.mooncake.library import load_mooncake
from kvloop.shared_cache.backends.mooncake.masters import choose_master
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.storage_errors import StorageUnavailable


class Connection(NamedTuple):
    """A client that is connected, and the pool registered with it."""

    store: Any
    """The library's MooncakeDistributedStore."""
    placement: Any
    """The library's ReplicateConfig for pages: how many copies, where, and how long they stay."""
    record_placement: Any
    """The same for small records, which stay."""
    master_index: int
    """Which of the masters in the configuration serves."""


def connect(config: MooncakeConfig, pool: HostPool) -> Connection:
    """Raises StorageUnavailable where the master or the network device is not there."""
    module = load_mooncake("store")
    master = choose_master(config.masters, config.cluster_id)
    environment_is_read()
    store = module.MooncakeDistributedStore()
    settings = _settings(config, master.entry)
    if status := store.setup(settings):
        raise StorageUnavailable(
            f"storage backend 'mooncake': setup with master {master.entry} over {config.protocol} "
            f"failed with {status}{_hint(config)}"
        )
    if status := store.register_buffer(pool.base_address, pool.num_bytes):
        store.close()
        raise StorageUnavailable(
            f"storage backend 'mooncake': registering {pool.num_bytes} bytes of host memory "
            f"failed with {status}"
        )
    records = _placement(module, config)
    records.with_hard_pin = True
    return Connection(store, _placement(module, config), records, master.position)


def _settings(config: MooncakeConfig, master: str) -> dict[str, str]:
    settings = {
        "local_hostname": config.local_hostname,
        "metadata_server": config.metadata_server,
        "global_segment_size": str(config.global_segment_size),
        "local_buffer_size": str(config.local_buffer_size),
        "protocol": config.protocol,
        "rdma_devices": config.devices,
        "master_server_addr": master,
    }
    return settings | ({"tenant_id": config.tenant_id} if config.tenant_id else {})


def _hint(config: MooncakeConfig) -> str:
    if config.protocol == "rdma":
        return f"; are the RDMA devices ({config.devices or 'any'}) there? MC_LOG_LEVEL=INFO says"
    return ""


def _placement(module: Any, config: MooncakeConfig) -> Any:
    placement = module.ReplicateConfig()
    placement.replica_num = config.replica_num
    placement.with_hard_pin = config.with_hard_pin
    if config.preferred_segments:
        placement.preferred_segments = config.preferred_segments
    if config.with_soft_pin:
        placement.soft_pin_action = module.SoftPinAction.ENABLE
    if config.soft_pin_ttl_s is not None:
        placement.soft_pin_ttl_ms = round(config.soft_pin_ttl_s * 1000)
    return placement
