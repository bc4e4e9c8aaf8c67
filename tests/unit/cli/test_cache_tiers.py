"""`kvloop cache` on stores that are made of several."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from shelf_store import KEYS, MODULE, NS, SHAPE, SHELVES, Shelf, config, describe, keys_left

from kvloop.cli.main import main
from kvloop.shared_cache.manifest import RECORD

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def near() -> Shelf:
    """One page, and no manifest."""
    SHELVES["near"].plant(NS, SHAPE, KEYS[0], used_at=100.0)
    return SHELVES["near"]


@pytest.fixture
def far() -> Iterator[Shelf]:
    """Four pages, the first the oldest."""
    for i, key in enumerate(KEYS[:4]):
        SHELVES["far"].plant(NS, SHAPE, key, used_at=float(i))
    describe(SHELVES["far"])
    yield SHELVES["far"]
    SHELVES.clear()


@pytest.fixture(params=["chain", "zones"])
def cache(
    request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str], near: Shelf, far: Shelf
) -> Run:
    inner = [{"backend": "dynamic", "config": config(name)} for name in ("near", "far")]
    names = ("near", "far") if request.param == "chain" else ("local", "central")
    fields = dict(zip(names, inner, strict=True))
    if request.param == "zones":
        fields["zone"] = "edge-a"  # type: ignore[assignment]

    def run(tool: str, *flags: str) -> tuple[int, str, str]:
        store = f"{request.param}:{json.dumps(fields)}"
        status = main(["cache", tool, store, *flags, "--dynamic-modules", MODULE])
        out = capsys.readouterr()
        return status, out.out, out.err

    return run


def test_stat_shows_each_tier_and_knows_the_model_in_both(cache: Run) -> None:
    status, out, _ = cache("stat", "--json")
    assert status == 0
    tiers = {store["tier"]: store["namespaces"][0] for store in json.loads(out)["stores"]}
    assert [found["pages"] for found in tiers.values()] == [1, 4]
    assert all(found["manifest"]["model"] == "smollm2" for found in tiers.values())


def test_looking_leaves_no_trace_in_any_tier(cache: Run, near: Shelf, far: Shelf) -> None:
    for tool in ("stat", "ls", "verify"):
        assert cache(tool)[0] == 0
    assert not near.records and set(far.records) == {(NS, RECORD)}
    assert keys_left(near) == {KEYS[0]}  # verifying promotes nothing


def test_verify_tells_which_tier_is_damaged(cache: Run, near: Shelf) -> None:
    near.flip(NS, KEYS[0])
    status, out, _ = cache("verify", "--json")
    found = {one["tier"]: one["faults"] for one in json.loads(out)["namespaces"]}
    assert status == 1 and list(found.values()) == [{"payload": 1}, {}]


def test_warm_brings_the_far_pages_near(cache: Run, near: Shelf, far: Shelf) -> None:
    status, out, _ = cache("warm")
    assert status == 0 and "3 of 4 pages copied" in out and "1 were there already" in out
    assert near.objects == far.objects
    assert set(near.records) == {(NS, RECORD)}


def test_warm_of_a_few_takes_the_last_used(cache: Run, near: Shelf) -> None:
    assert cache("warm", "--limit", "2")[0] == 0
    assert keys_left(near) == {KEYS[0], KEYS[2], KEYS[3]}


def test_warm_leaves_damaged_pages_where_they_are(cache: Run, near: Shelf, far: Shelf) -> None:
    far.flip(NS, KEYS[2])
    assert cache("warm")[0] == 1
    assert keys_left(near) == {KEYS[0], KEYS[1], KEYS[3]}


def test_evict_of_all_empties_both_tiers(cache: Run, near: Shelf, far: Shelf) -> None:
    assert cache("evict", "--all")[0] == 0
    assert not near.objects and not far.objects and not far.records


def test_evict_by_age_asks_each_tier_for_its_own(cache: Run, near: Shelf, far: Shelf) -> None:
    near.used[KEYS[0]] = 1e12
    status, _, _ = cache("evict", "--older-than", "1d")
    assert status == 0 and keys_left(near) == {KEYS[0]} and not keys_left(far)


def test_evict_to_a_size_wants_one_store(cache: Run, near: Shelf) -> None:
    status, _, err = cache("evict", "--to", "1B")
    assert status == 2 and "is made of several: name one" in err and near.objects


def test_a_tier_that_fails_is_named_and_the_other_shown(cache: Run, far: Shelf) -> None:
    far.fails |= {"objects", "get_small"}
    status, out, err = cache("stat", "--json")
    assert status == 1 and len(json.loads(out)["stores"]) == 1 and "objects fails" in err


def test_stat_fails_where_every_tier_does(cache: Run, near: Shelf, far: Shelf) -> None:
    near.fails.add("objects")
    far.fails.add("objects")
    status, out, _ = cache("stat")
    assert status == 1 and not out


def test_a_tier_that_cannot_list_is_named_and_the_other_shown(cache: Run, far: Shelf) -> None:
    far.can_list = False
    status, out, err = cache("stat", "--json")
    assert status == 0 and len(json.loads(out)["stores"]) == 1 and "cannot list" in err
