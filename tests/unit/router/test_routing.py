from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kvloop.router.prefix_index import PrefixIndex
from kvloop.router.routing import rank_decodes, rank_prefills
from kvloop.shared_cache.keys import page_keys
from kvloop.shared_cache.wire import NodeRecord, Role


def node(name: str, role: Role = "prefill", **more: Any) -> NodeRecord:
    fields = {"namespace": "n", "page_size": 16, "ready": True} | more
    return NodeRecord(url=f"http://{name}", role=role, incarnation=name, **fields)


DECODE = node("d", "decode")


def prefills(nodes: list[NodeRecord], decode: NodeRecord = DECODE, **known: Any) -> list[str]:
    load, held = known.get("load", {}), known.get("held", {})
    ranked = rank_prefills(
        nodes,
        decode,
        load=lambda n: load.get(n.incarnation, 0),
        held_pages=held,
        turn=known.get("turn", 0),
    )
    return [candidate.incarnation for candidate in ranked]


def test_the_longest_cached_prefix_wins_among_equally_loaded_prefills() -> None:
    nodes = [node("a"), node("b"), node("c")]
    assert prefills(nodes, held={"b": 3, "c": 9}) == ["c", "b", "a"]


def test_load_outweighs_a_short_prefix_but_not_a_long_one() -> None:
    nodes = [node("busy"), node("idle")]
    assert prefills(nodes, held={"busy": 4}, load={"busy": 2})[0] == "idle"
    assert prefills(nodes, held={"busy": 100}, load={"busy": 2})[0] == "busy"


def test_equal_prefills_take_turns() -> None:
    nodes = [node("a"), node("b")]
    assert [prefills(nodes, turn=turn)[0] for turn in range(4)] == ["a", "b", "a", "b"]


def test_the_decodes_zone_is_preferred() -> None:
    nodes = [node("far", zone="z1"), node("near", zone="z2")]
    assert prefills(nodes, node("d", "decode", zone="z2"))[0] == "near"


def test_another_namespace_or_generation_is_never_paired() -> None:
    nodes = [node("a", namespace="other"), node("b", generation="2"), node("c")]
    assert prefills(nodes) == ["c"]


def test_decode_keeps_a_session_unless_it_is_much_busier() -> None:
    nodes = [node("a", "decode"), node("b", "decode")]

    def first(load: dict[str, int]) -> str:
        ranked = rank_decodes(
            nodes,
            load=lambda n: load.get(n.incarnation, 0),
            held_pages=lambda n: 64 if n.incarnation == "b" else 0,
            zone="",
            turn=0,
        )
        return ranked[0].incarnation

    assert first({"b": 1}) == "b"
    assert first({"b": 5}) == "a"


def test_runs_count_pages_without_a_gap() -> None:
    index = PrefixIndex(100)
    keys = page_keys([1, 2, 3, 4], 1)
    index.record(keys[:3], "a")
    index.record(page_keys([1, 9], 1), "b")
    assert index.leading_pages(keys) == {"a": 3, "b": 1}
    assert index.leading_pages(page_keys([9, 1], 1)) == {}


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from("abc")), max_size=60))
def test_the_index_stays_within_its_bound_and_keeps_the_latest(
    records: list[tuple[int, str]],
) -> None:
    index = PrefixIndex(4)
    for key, holder in records:
        index.record(page_keys([key], 1), holder)
        assert len(index) <= 4
    if records:
        key, holder = records[-1]
        assert index.leading_pages(page_keys([key], 1))[holder] == 1


def test_a_decode_node_without_a_prefill_of_its_generation_comes_last() -> None:
    old, new = node("old", "decode", generation="1"), node("new", "decode", generation="2")
    peers = [node("p", generation="1")]
    for load in ({"old": 0}, {"old": 50}):
        ranked = rank_decodes(
            [new, old],
            load=lambda n, load=load: load.get(n.incarnation, 0),  # type: ignore[misc]
            held_pages=lambda _: 0,
            zone="",
            turn=0,
            prefills=peers,
        )
        assert [one.incarnation for one in ranked] == ["old", "new"]
