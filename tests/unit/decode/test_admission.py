"""What a decode node refuses at once, and in which words."""

import pytest

from kvloop.decode.admission import Limits, own
from kvloop.shared_cache.wire import GenerateRequest, Sampling

LIMITS = Limits(namespace="n", generation="g", max_context=100, pool_tokens=80, vocab_size=50)


def request(
    prompt: list[int], max_tokens: int = 4, namespace: str = "n", generation: str = "g"
) -> GenerateRequest:
    return GenerateRequest(
        request_id="r",
        prompt=prompt,
        sampling=Sampling(max_tokens=max_tokens),
        namespace=namespace,
        generation=generation,
    )


def test_a_request_that_fits_is_taken() -> None:
    assert LIMITS.refusal(request([1, 2, 3])) is None


@pytest.mark.parametrize(
    ("asked", "kind", "words"),
    [
        (request([1], namespace="other"), "namespace", "namespace"),
        (request([1], generation="old"), "namespace", "generation"),
        (request([]), "empty", "at least one token"),
        (request([1], max_tokens=0), "empty", "at least one token"),
        (request([50]), "token", "0 to 49"),
        (request([-1]), "token", "0 to 49"),
        (request([1] * 99, 4), "context_length", "103 tokens, this context holds 100"),
        (request([1] * 78, 4), "pool", "--max-total-tokens"),
    ],
)
def test_what_can_never_be_served_is_refused_in_words(
    asked: GenerateRequest, kind: str, words: str
) -> None:
    refusal = LIMITS.refusal(asked)
    assert refusal is not None
    assert (refusal.kind, refusal.status >= 400) == (kind, True)
    assert words in refusal.message


def test_a_request_without_a_seed_gets_one_that_prefill_is_told_too() -> None:
    owner = own(request([1, 2]), page_size=16)
    assert owner.request.sampling.seed is not None
    assert owner.sampling.seed == owner.request.sampling.seed
