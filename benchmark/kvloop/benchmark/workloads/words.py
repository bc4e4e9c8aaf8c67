"""What is said, drawn by a key: equal seeds and keys give equal words on every machine."""

from __future__ import annotations

import random

# Common words, about one token each in the vocabularies of today's models.
_TEXT = """
time people way day man thing woman life child world school state family student group
country problem hand part place case week company system program question work government
number night point home water room mother area money story fact month lot right study book
eye job word business issue side kind head house service friend father power hour game line
end member law car city community name president team minute idea body information back
"""
WORDS = tuple(_TEXT.split())


def new_random(seed: int, *what: object) -> random.Random:
    """Draws that belong to `what` alone: other draws before or after change nothing."""
    # A string seed is hashed with SHA-512: the same on every machine.
    return random.Random(f"{seed}/{'/'.join(map(str, what))}")


def draw_ids(seed: int, key: str, length: int, id_range: tuple[int, int]) -> list[int]:
    """`length` token ids from [low, high)."""
    return new_random(seed, "words", key).choices(range(*id_range), k=length)


def draw_text(seed: int, key: str, length: int) -> str:
    """`length` words."""
    return " ".join(new_random(seed, "words", key).choices(WORDS, k=length))
