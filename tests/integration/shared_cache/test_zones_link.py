"""An edge site on real files, and a real Mooncake at the centre that dies and comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mooncake_store import MooncakeStore
from running import wait_for

from kvloop.shared_cache.backend import StorageBackend
from kvloop.shared_cache.conformance.child_process import ChildProcess
from kvloop.shared_cache.conformance.place import Place
from kvloop.shared_cache.conformance.spec import BackendSpec
from kvloop.shared_cache.storage_errors import StorageError

pytestmark = pytest.mark.integration

RETURN_S = 60.0


class Reborn(MooncakeStore):
    """Another store at the address of one that was killed; it is empty."""

    def __init__(self, log: Path, before: MooncakeStore) -> None:
        self._before = before
        super().__init__(log)

    def _ports(self) -> tuple[str, ...]:
        self.port, self.metrics_port = self._before.port, self._before.metrics_port
        self.address = self._before.address
        return super()._ports()


class Link:
    """The centre, which can go away and come back."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._num_started = 1
        self.store = MooncakeStore(folder / "store-0.log")

    def cut(self) -> None:
        self.store.process.kill()  # its master goes with it
        self.store.process.wait(10)

    def restore(self) -> None:
        self.store = Reborn(self._folder / f"store-{self._num_started}.log", self.store)
        self._num_started += 1


@pytest.fixture
def link(tmp_path: Path) -> Iterator[Link]:
    link = Link(tmp_path)
    yield link
    link.cut()


@pytest.fixture
def site(link: Link, tmp_path: Path) -> Iterator[Place]:
    """Opens nodes of the edge site."""
    place = Place(BackendSpec(name="zones", extra_config=zones(link, tmp_path, lease_s=1.0)))
    yield place
    place.close()


def zones(link: Link, root: Path, **fields: Any) -> dict[str, Any]:
    local = {"backend": "file", "config": {"root": str(root / "edge")}}
    central = {"backend": "mooncake", "config": {"master_server_address": link.store.address}}
    return {"zone": "edge-a", "local": local, "central": central, **fields}


def read_from_centre(link: Link, site: Place, keys: list[bytes]) -> Callable[[], bool]:
    """Whether a node elsewhere finds all of these pages, bit for bit."""
    config = {"master_server_address": link.store.address}
    elsewhere = Place(BackendSpec(name="mooncake", extra_config=config), namespace=site.namespace)

    def is_there() -> bool:
        try:
            backend = elsewhere.open()
            is_found = elsewhere.read_back(backend, keys) == [True] * len(keys)
            elsewhere.shut(backend)
        except StorageError:
            return False
        return is_found

    return is_there


def set_pages(site: Place, node: StorageBackend, keys: list[bytes]) -> None:
    slots = site.filled(keys)
    assert node.set(keys, slots) == [True] * len(keys)
    site.pool.free(slots)


def test_pages_written_at_the_edge_are_found_at_the_centre(link: Link, site: Place) -> None:
    node, keys = site.open(), site.new_keys(6)
    set_pages(site, node, keys)
    wait_for("the pages", read_from_centre(link, site, keys), RETURN_S)


def test_a_site_goes_on_while_the_centre_is_dead_and_catches_up_after(
    link: Link, site: Place
) -> None:
    node, keys = site.open(), site.new_keys(8)
    link.cut()
    for key in keys:
        set_pages(site, node, [key])
        assert site.read_back(node, [key]) == [True]
        assert node.exists([key, *site.new_keys(1)]) == [True, False]
    assert node.stats()["backlog"] == 8 and node.stats()["central_up"] == 0
    link.restore()
    wait_for("the pages", read_from_centre(link, site, keys), RETURN_S)
    wait_for("an empty outbox", lambda: node.stats()["backlog"] == 0, RETURN_S)
    wait_for("the link", lambda: node.stats()["central_up"] == 1, RETURN_S)


def test_a_node_that_starts_while_the_centre_is_dead_sends_what_was_left_behind(
    link: Link, site: Place
) -> None:
    node, keys = site.open(), site.new_keys(8)
    link.cut()
    set_pages(site, node, keys)
    site.shut(node)
    later = site.open()
    assert site.read_back(later, keys) == [True] * 8
    link.restore()
    wait_for("the pages", read_from_centre(link, site, keys), RETURN_S)
    assert later.stats()["adopted"] == 8


def test_what_a_killed_process_had_written_is_sent_by_another_node(link: Link, site: Place) -> None:
    keys = site.new_keys(24)
    link.cut()
    with ChildProcess(site, keys, pages_per_call=4, dies_at=3.5) as child:
        child.wait_ready()
        child.go()
        child.wait_killed()
    site.open()
    link.restore()
    wait_for("the pages", read_from_centre(link, site, keys[:12]), RETURN_S)
