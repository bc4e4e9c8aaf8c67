from canary_nodes import node

from kvloop.router.canary.plan import MAX_PAIRS, plan_pairs, why_unpaired


def test_every_node_is_in_a_pair_and_turn_2_reads_at_another_prefill_node() -> None:
    prefills, decodes = (
        [node("prefill", i) for i in range(3)],
        [node("decode", i) for i in range(2)],
    )
    plan = plan_pairs(prefills, decodes, 0)
    assert len(plan.pairs) == 3 and not plan.problems
    assert {pair.prefill.url for pair in plan.pairs} == {p.url for p in prefills}
    assert {pair.decode.url for pair in plan.pairs} == {d.url for d in decodes}
    assert all(pair.reader.url != pair.prefill.url for pair in plan.pairs)


def test_the_only_prefill_node_reads_what_it_stored() -> None:
    (pair,) = plan_pairs([node("prefill")], [node("decode")], 0).pairs
    assert pair.reader == pair.prefill


def test_a_decode_node_that_no_prefill_node_fits_is_a_problem_that_names_both_namespaces() -> None:
    plan = plan_pairs([node("prefill", namespace="bb" * 32)], [node("decode")], 0)
    assert not plan.pairs
    (problem,) = plan.problems
    assert "decode http://decode0:1" in problem and "http://prefill0:1" in problem
    assert "namespaces differ: prefill bbbbbbbbbbbb, decode aaaaaaaaaaaa" in problem


def test_page_sizes_that_differ_are_named_before_the_namespaces_that_differ_with_them() -> None:
    words = why_unpaired(node("prefill", page_size=64, namespace="bb" * 32), node("decode"))
    assert words == "page sizes differ: prefill 64, decode 16"


def test_generations_that_differ_are_named() -> None:
    words = why_unpaired(node("prefill", generation="g1"), node("decode", generation="g2"))
    assert words == "generations differ: prefill 'g1', decode 'g2'"


def test_two_generations_side_by_side_are_two_loops() -> None:
    prefills = [node("prefill", i, generation=f"g{i}") for i in range(2)]
    decodes = [node("decode", i, generation=f"g{i}") for i in range(2)]
    plan = plan_pairs(prefills, decodes, 0)
    assert [(p.prefill.generation, p.decode.generation) for p in plan.pairs] == [
        ("g0", "g0"),
        ("g1", "g1"),
    ]
    assert not plan.problems and not plan.notes


def test_a_prefill_node_that_no_decode_node_asks_is_a_note_and_breaks_nothing() -> None:
    prefills = [node("prefill", 0), node("prefill", 1, generation="next")]
    plan = plan_pairs(prefills, [node("decode")], 0)
    assert len(plan.pairs) == 1 and not plan.problems
    assert plan.notes == ("prefill http://prefill1:1 has no decode node to be paired with",)


def test_a_large_cluster_is_gone_through_in_parts_until_every_decode_node_was_met() -> None:
    prefills, decodes = [node("prefill")], [node("decode", i) for i in range(40)]
    met: set[str] = set()
    for turn in range(3):
        plan = plan_pairs(prefills, decodes, turn)
        assert len(plan.pairs) == MAX_PAIRS
        assert plan.notes == (f"{MAX_PAIRS} of 40 pairs of nodes are checked this time",)
        met |= {pair.decode.url for pair in plan.pairs}
    assert len(met) == 40
