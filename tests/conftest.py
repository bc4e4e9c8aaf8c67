"""What holds for all tests."""

from __future__ import annotations

from examples import DEFAULT
from hypothesis import settings

# Without a deadline: a busy machine is no failure.
settings.register_profile("kvloop", deadline=None, max_examples=DEFAULT)
settings.load_profile("kvloop")
