"""Names from outside: they stay under their root, or are refused with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.safe_path import checked_root, path_under

UNUSABLE = [("", "empty"), ("a\x00b", "NUL"), ("x" * 10_000, "too long"), ("../up", r"'\.\.'")]


@pytest.mark.parametrize(
    ("name", "reason"), [*UNUSABLE, ("/etc", "relative"), ("a/../..", r"\.\.")]
)
def test_a_name_that_would_leave_the_root_is_refused_with_the_reason(
    tmp_path: Path, name: str, reason: str
) -> None:
    with pytest.raises(ConfigError, match=f"^directory: .*{reason}"):
        path_under(tmp_path, "directory", name)


def test_a_symlink_that_leads_out_of_the_root_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "out").symlink_to(tmp_path)

    with pytest.raises(ConfigError, match="symlink"):
        path_under(root, "directory", "out/pages")


def test_a_symlink_that_stays_under_the_root_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")

    assert path_under(tmp_path, "directory", "link/pages") == tmp_path / "link" / "pages"


def test_a_plain_name_lies_under_its_root(tmp_path: Path) -> None:
    assert path_under(tmp_path, "directory", "a/b") == tmp_path / "a" / "b"


@pytest.mark.parametrize(("name", "reason"), UNUSABLE)
def test_an_unusable_root_is_refused_with_the_reason(name: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=f"^root: .*{reason}"):
        checked_root("root", name)


def test_many_short_parts_are_too_long_together(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="too long"):
        path_under(tmp_path, "directory", "/".join(["part"] * 2000))


def test_an_error_shows_only_the_start_of_a_long_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        path_under(tmp_path, "directory", "x" * 10_000)

    assert len(str(error.value)) < 300
