"""What only a hand in the store itself can show: objects that no backend would have written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mooncake_store import MooncakeStore

from kvloop.shared_cache.backends.directory.layout import Layout
from kvloop.shared_cache.backends.mooncake.library import load_mooncake
from kvloop.shared_cache.conformance.pages import object_view
from kvloop.shared_cache.conformance.place import Place
from kvloop.shared_cache.conformance.spec import BackendSpec
from kvloop.shared_cache.page_object import object_name

pytestmark = pytest.mark.integration


class Files:
    """A store of files, and how an object is put there by hand."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.spec = BackendSpec(name="file", extra_config={"root": str(root)})

    def plant(self, place: Place, key: bytes, group: int, data: bytes) -> None:
        path = self._root / Layout(place.namespace).path(key, group)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


class Mooncake:
    """The same, in a Mooncake store."""

    def __init__(self, store: MooncakeStore) -> None:
        self._address = store.address
        self.spec = BackendSpec(name="mooncake", extra_config=store.config)

    def plant(self, place: Place, key: bytes, group: int, data: bytes) -> None:
        client = load_mooncake("store").MooncakeDistributedStore()
        setup = ("127.0.0.1", "P2PHANDSHAKE", 0, 1 << 24, "tcp", "", self._address)
        assert client.setup(*setup) == 0
        assert client.upsert(object_name(place.namespace, key, group), data) == 0
        client.close()


@pytest.fixture(params=["file", "mooncake"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Files | Mooncake:
    if request.param == "file":
        return Files(tmp_path / "l3")
    return Mooncake(request.getfixturevalue("mooncake_store"))


@pytest.fixture
def place(store: Files | Mooncake) -> Iterator[Place]:
    place = Place(store.spec)
    yield place
    place.close()


def sealed(place: Place, key: bytes, group: int) -> bytes:
    return bytes(object_view(place.shape, memoryview(place.image(key)), group))


def test_a_page_exists_only_with_all_its_groups(place: Place, store: Files | Mooncake) -> None:
    backend, [key] = place.open(), place.new_keys(1)
    store.plant(place, key, 0, sealed(place, key, 0))
    assert backend.exists([key]) == [False]
    assert place.read_back(backend, [key]) == [False]
    assert backend.set([key], place.filled([key])) == [True]
    assert place.read_back(backend, [key]) == [True]


def test_a_page_that_was_planted_whole_is_served(place: Place, store: Files | Mooncake) -> None:
    """So the tests below show the damage, and not a plant in the wrong place."""
    backend, [key] = place.open(), place.new_keys(1)
    for group in range(place.shape.head_groups):
        store.plant(place, key, group, sealed(place, key, group))
    assert backend.exists([key]) == [True] and place.read_back(backend, [key]) == [True]


def flipped(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


def shortened(data: bytes) -> bytes:
    return data[:-1]


def lengthened(data: bytes) -> bytes:
    return data + b"x"


def emptied(data: bytes) -> bytes:
    return b""


@pytest.mark.parametrize(
    ("damage", "counted"),
    [
        (flipped, ("fault", 1)),
        (shortened, ("miss", 1)),
        (lengthened, ("miss", 1)),
        (emptied, ("miss", 1)),
    ],
)
def test_a_damaged_object_is_a_counted_miss_and_can_be_written_again(
    place: Place,
    store: Files | Mooncake,
    damage: Callable[[bytes], bytes],
    counted: tuple[str, int],
) -> None:
    [key] = place.new_keys(1)
    if damage is emptied and isinstance(store, Mooncake):
        pytest.skip("Mooncake's client stores no empty object")
    for group in range(place.shape.head_groups):
        store.plant(place, key, group, damage(sealed(place, key, group)))
    pages = place.page_store()
    assert pages.load([key], place.blank(1)) == [None]
    result, count = counted
    assert pages.counters.snapshot().pages["prefetch", result] == count  # type: ignore[index]
    if damage is flipped:
        assert pages.counters.snapshot().faults == {"payload": 1}
    assert pages.save([key], place.filled([key])) == [True]
    [slot] = place.blank(1)
    assert pages.load([key], [slot]) == ["prefill"] and place.holds(slot, key)
