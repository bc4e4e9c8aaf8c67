"""How stores, times and sizes are written on the command line of `kvloop cache`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from kvloop.cli.cache import values
from kvloop.cli.cache.words import age_words, bytes_words, counts_words, pages_words
from kvloop.shared_cache.page_object import PageShape
from kvloop.shared_cache.store_tools.address import StoreAddress

KEY = "ab" * 32


@pytest.mark.parametrize(
    ("text", "backend", "config"),
    [
        ("file:/var/cache", "file", {"root": "/var/cache"}),
        ("file:///var/cache", "file", {"root": "/var/cache"}),
        ("mooncake:10.0.0.5:50051", "mooncake", {"master_server_address": "10.0.0.5:50051"}),
        ("mooncake://[::1]:1", "mooncake", {"master_server_address": "[::1]:1"}),
        (
            "mooncake:a:1?master_metrics_port=9004&protocol=rdma",
            "mooncake",
            {"master_server_address": "a:1", "master_metrics_port": 9004, "protocol": "rdma"},
        ),
        ('nixl:{"plugin": "POSIX"}', "nixl", {"plugin": "POSIX"}),
        ('file:{"root": "/a"}', "file", {"root": "/a"}),
    ],
)
def test_a_short_form_is_a_backend_and_its_config(
    text: str, backend: str, config: dict[str, object]
) -> None:
    assert values.store(text) == StoreAddress(backend=backend, config=config)


def test_a_relative_path_is_of_the_working_directory() -> None:
    assert values.store("file:cache").config == {"root": str(Path.cwd() / "cache")}


def test_a_file_holds_a_config_or_a_whole_store(tmp_path: Path) -> None:
    config, store = tmp_path / "config.json", tmp_path / "store.json"
    config.write_text('{"root": "/a"}')
    store.write_text('{"backend": "file", "config": {"root": "/a"}}')
    wanted = StoreAddress(backend="file", config={"root": "/a"})
    assert values.store(f"file:@{config}") == values.store(f"@{store}") == wanted


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is no store: write file:/PATH"),
        ("/var/cache", "is no store"),
        ("s3:bucket", "names: aibrix, chain"),
        ("file:", "must not be empty"),
        ("file:/a/../b", "must not contain '..'"),
        ("file:/a\x00b", "NUL"),
        ("file:" + "x" * 10_000, "too long"),
        ("file:" + "/x" * 5_000, "too long"),
        ("file://host/path", "names a host"),
        ("mooncake:host", "mooncake:HOST:PORT"),
        ("mooncake:host:0", "from 1 to 65535"),
        ("mooncake:host:65536", "from 1 to 65535"),
        ("mooncake:../etc:1", "mooncake:HOST:PORT"),
        ("mooncake:h:1/../x", "mooncake:HOST:PORT"),
        ("mooncake:" + "h" * 10_000 + ":1", "mooncake:HOST:PORT"),
        ("mooncake:h:1?protocol", "FIELD=VALUE"),
        ("zones:/a", "zones has no short form; write zones:{JSON}"),
        ("file:{bad", "is not JSON"),
        ("file:@/none/such", "cannot read '/none/such'"),
        ("@/none/such", "cannot read '/none/such'"),
    ],
)
def test_a_wrong_store_is_refused_and_says_why(text: str, words: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as refused:
        values.store(text)
    assert words in str(refused.value) and len(str(refused.value)) < 500


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"backend": "s3"}, "backend must be one of aibrix"),
        ({"config": {}}, "backend must be one of"),
        ({"backend": "file", "config": []}, "config must be a JSON object"),
        ({"backend": "file", "root": "/a"}, "unknown field 'root'; known: backend, config"),
    ],
)
def test_a_wrong_file_of_a_store_names_its_field(
    tmp_path: Path, content: dict[str, object], words: str
) -> None:
    file = tmp_path / "store.json"
    file.write_text(json.dumps(content))
    with pytest.raises(argparse.ArgumentTypeError, match=words):
        values.store(f"@{file}")


def test_keys_are_read_line_by_line_each_once(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# of the failing chat\n{KEY}\n\n  {'CD' * 32}  # and its answer\n{KEY}\n")
    assert values.keys(str(file)) == [b"\xab" * 32, b"\xcd" * 32]


@pytest.mark.parametrize("line", ["ab" * 31, "xy" * 32, KEY + " " + KEY, "../" + KEY])
def test_a_wrong_key_is_refused_by_its_line(tmp_path: Path, line: str) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{KEY}\n{line}\n")
    with pytest.raises(argparse.ArgumentTypeError, match="line 2 of"):
        values.keys(str(file))


def test_a_file_of_keys_that_is_not_there_is_named() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="cannot read '/none/such'"):
        values.keys("/none/such")


@pytest.mark.parametrize("text", ["", "xyz", "ab" * 33, "../a"])
def test_a_namespace_is_hexadecimal(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="hexadecimal"):
        values.namespace(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("1.5h", 5400), ("1d", 86400), ("2w", 1209600)],
)
def test_times_have_units(text: str, seconds: float) -> None:
    assert values.duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [("0B", 0), ("500MiB", 500 << 20), ("10GiB", 10 << 30), ("1.5TB", 1_500_000_000_000)],
)
def test_sizes_have_units(text: str, size: int) -> None:
    assert values.size(text) == size


@pytest.mark.parametrize("text", ["", "10", "d", "-1d", "1x", "nan d", "1e9d", "9" * 400 + "d"])
def test_an_amount_without_a_known_unit_is_refused(text: str) -> None:
    for parse in (values.duration, values.size):
        with pytest.raises(argparse.ArgumentTypeError, match="must be a"):
            parse(text)


def test_a_shape_is_given_by_its_fields() -> None:
    fields = dict(num_layers=2, page_size=16, num_kv_heads=4, head_size=8, itemsize=2, codec="int8")
    assert values.shape(json.dumps(fields)) == PageShape(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"layers": 2}, "unknown field 'layers'; known: num_layers"),
        ({"num_layers": 2}, "page_size"),
        ({"num_layers": "2"}, "num_layers"),
        (
            dict(num_layers=0, page_size=16, num_kv_heads=4, head_size=8, itemsize=2),
            "num_layers must be positive",
        ),
    ],
)
def test_a_wrong_shape_names_its_field(fields: dict[str, object], words: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=words):
        values.shape(json.dumps(fields))


def test_sizes_and_ages_are_short() -> None:
    assert [bytes_words(n) for n in (0, 1023, 1024, 3 << 19, 5 << 40, 5 << 50)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.5 MiB",
        "5.0 TiB",
        "5120.0 TiB",
    ]
    ages = [age_words(at, 1_000_000.0) for at in (None, 1_000_001.0, 999_941.0, 990_000.0, 0.0)]
    assert ages == ["-", "0s", "59s", "3h", "12d"]


def test_counts_are_told_the_most_first() -> None:
    assert counts_words({"key": 1, "payload": 2000}) == "payload 2,000, key 1"
    assert (pages_words(1), pages_words(2000)) == ("1 page", "2,000 pages")
