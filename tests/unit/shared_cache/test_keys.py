import hashlib
import re
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvloop.shared_cache.keys import cache_seed, page_keys

DOC = Path(__file__).parents[3] / "docs" / "page-keys.md"
SEED = cache_seed("acme", "blue")
tokens_lists = st.lists(st.integers(0, 2**32 - 1), max_size=50)


def naive_keys(tokens: list[int], page_size: int, seed: bytes | None) -> list[bytes]:
    digest, keys = seed or b"", []
    for i in range(0, len(tokens) - page_size + 1, page_size):
        hasher = hashlib.sha256(digest)
        for token in tokens[i : i + page_size]:
            hasher.update(struct.pack("<I", token))
        digest = hasher.digest()
        keys.append(digest)
    return keys


@given(tokens_lists, st.integers(1, 9), st.sampled_from([None, SEED]))
def test_keys_equal_a_token_by_token_chain(
    tokens: list[int], page_size: int, seed: bytes | None
) -> None:
    assert page_keys(tokens, page_size, seed) == naive_keys(tokens, page_size, seed)


@given(tokens_lists, st.integers(1, 9), st.integers(0, 5))
def test_a_chain_continues_from_its_parent(tokens: list[int], page_size: int, cut: int) -> None:
    whole = page_keys(tokens, page_size, SEED)
    cut = min(cut, len(whole))
    head, tail = tokens[: cut * page_size], tokens[cut * page_size :]
    keys = page_keys(head, page_size, SEED)
    keys += page_keys(tail, page_size, SEED, parent=keys[-1] if keys else None)
    assert keys == whole


def test_only_full_pages_have_keys() -> None:
    assert page_keys(list(range(15)), 16) == []
    assert len(page_keys(list(range(33)), 16)) == 2


def test_tuples_and_arrays_have_the_keys_of_lists() -> None:
    tokens = list(range(40))
    assert page_keys(tuple(tokens), 8) == page_keys(range(40), 8) == page_keys(tokens, 8)


def test_a_negative_token_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="tokens must be within"):
        page_keys([1, -1], 2)


def test_a_page_size_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="page_size must be positive, got 0"):
        page_keys([1], 0)


def test_no_tenant_and_no_salt_have_no_seed() -> None:
    assert cache_seed(None, None) is None


def test_every_pair_of_tenant_and_salt_has_a_seed_of_its_own() -> None:
    values = [None, "", "a", "ab", "b"]
    seeds = [cache_seed(tenant, salt) for tenant in values for salt in values]
    assert len(set(seeds)) == len(seeds)


def test_the_seed_is_the_digest_of_domain_tenant_and_salt() -> None:
    tenant = b"\x01" + (5).to_bytes(8, "little") + "zoë!".encode()
    data = b"sglang-cache-namespace-v1" + tenant + b"\x00"
    assert cache_seed("zoë!", None) == hashlib.sha256(data).digest()


def test_the_published_vectors_hold() -> None:
    text = DOC.read_text()
    found = re.findall(r"\b[0-9a-f]{64}\b", text)
    keys = page_keys(list(range(8)), 4) + page_keys(list(range(8)), 4, SEED)
    keys += page_keys([0, 1, 49151, 2**32 - 1] * 4, 16, cache_seed("acme", None))
    assert SEED is not None
    assert found == [key.hex() for key in [*keys[:2], SEED, *keys[2:]]]
