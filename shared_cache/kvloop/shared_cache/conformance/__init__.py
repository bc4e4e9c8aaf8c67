"""What every storage backend must do, as pytest tests that anyone runs on a backend of his own.

In a test module, with the backend's configuration:

    from kvloop.shared_cache.conformance import BackendConformance, BackendSpec

    class TestAcme(BackendConformance):
        @pytest.fixture
        def spec(self, tmp_path: Path) -> BackendSpec:
            return BackendSpec(
                name="dynamic", extra_config={...}, dynamic_modules=("acme.kv",)
            )

or without writing any code: `pytest --pyargs kvloop.shared_cache.conformance`, configured by
environment variables (see `environment`). Needs pytest, and nothing of a node.
"""

import pytest

pytest.register_assert_rewrite(
    *(
        f"{__name__}.{suite}"
        for suite in (
            "capacity_suite",
            "content_suite",
            "crash_suite",
            "damage_suite",
            "fault_suite",
            "namespace_suite",
            "place",
            "race_suite",
            "record_suite",
            "resource_suite",
        )
    )
)

from kvloop.shared_cache.conformance.spec import BackendSpec  # noqa: E402
from kvloop.shared_cache.conformance.suite import BackendConformance  # noqa: E402

__all__ = ["BackendConformance", "BackendSpec"]
