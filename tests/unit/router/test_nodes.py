import msgspec

from kvloop.router.nodes import NodeRegistry
from kvloop.shared_cache.wire import NodeLoad, NodeRecord

RECORD = NodeRecord(url="http://a:1", role="decode", incarnation="one", namespace="n", ready=True)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def urls(registry: NodeRegistry) -> list[str]:
    return [record.url for record in registry.ready("decode")]


def test_a_node_that_is_not_heard_of_expires_and_comes_back() -> None:
    clock = Clock()
    registry = NodeRegistry(5, clock)
    registry.update(RECORD)
    clock.now += 5
    assert urls(registry) == ["http://a:1"]
    clock.now += 0.1
    assert urls(registry) == []
    assert registry.states()[0][1] == "lost"
    assert not registry.is_alive(RECORD)
    registry.update(RECORD)
    assert urls(registry) == ["http://a:1"]


def test_a_new_incarnation_replaces_the_old() -> None:
    registry = NodeRegistry(5)
    registry.update(RECORD)
    registry.update(msgspec.structs.replace(RECORD, incarnation="two"))
    assert [r.incarnation for r in registry.ready("decode")] == ["two"]
    assert not registry.is_alive(RECORD)
    assert registry.incarnation_at("http://a:1/") == "two"


def test_one_incarnation_is_one_node_under_whatever_url() -> None:
    registry = NodeRegistry(5)
    registry.update(RECORD)
    registry.update(msgspec.structs.replace(RECORD, url="http://alias:1/"))
    assert urls(registry) == ["http://alias:1"]


def test_a_suspect_gets_nothing_until_it_is_heard_of() -> None:
    registry = NodeRegistry(5)
    registry.update(RECORD)
    registry.suspect(msgspec.structs.replace(RECORD, incarnation="older"))
    assert urls(registry) == ["http://a:1"]
    registry.suspect(RECORD)
    assert urls(registry) == []
    registry.update(RECORD)
    assert urls(registry) == ["http://a:1"]


def test_load_is_the_larger_of_what_it_said_and_what_was_sent() -> None:
    registry = NodeRegistry(5)
    record = msgspec.structs.replace(RECORD, load=NodeLoad(running=1, waiting=1))
    with registry.in_flight("one"):
        assert registry.load(RECORD) == 1
        assert registry.load(record) == 2
        with registry.in_flight("one"), registry.in_flight("one"):
            assert registry.load(record) == 3
    assert registry.load(RECORD) == 0


def test_a_node_that_is_not_ready_gets_nothing() -> None:
    registry = NodeRegistry(5)
    registry.update(msgspec.structs.replace(RECORD, ready=False))
    assert urls(registry) == []
    assert registry.states()[0][1] == "starting"
