"""The conformance suite passes a backend that is right, and finds each fault of one that is not."""

from __future__ import annotations

import inspect
import json
from dataclasses import asdict
from pathlib import Path

import broken_backends
import pytest
from reference_store import reference_spec
from suite_runs import NEED_PROCESSES, broken, outcomes

from kvloop.shared_cache.conformance import BackendSpec
from kvloop.shared_cache.conformance.environment import (
    bounded_from_environment,
    spec_from_environment,
)
from kvloop.shared_cache.conformance.suite import BackendConformance
from kvloop.shared_cache.errors import ConfigError

pytest_plugins = ("pytester",)


@pytest.fixture(autouse=True)
def no_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite needs none, and each run would load them all again."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


_FOUND_BY = {
    "FlipsABit": "pages_come_back_bit_for_bit",
    "ReadsNothing": "pages_come_back_bit_for_bit",
    "FirstGroupOnly": "pages_come_back_bit_for_bit",
    "MixesTheSlotsUp": "pages_come_back_bit_for_bit",
    "WritesNextDoor": "get_writes_to_no_slot_but_its_own",
    "ScribblesWhenItSets": "set_leaves_its_slots_as_they_are",
    "ClaimsAll": "existence_is_told_key_by_key",
    "AnswersHitsOnly": "batch_with_holes",
    "StopsAtTheFirstMiss": "batch_with_holes",
    "RaisesOnAMiss": "missing_pages_are_misses",
    "LastSetWins": "first_set_wins",
    "RefusesWhatIsThere": "set_of_some_new_pages_keeps_the_old",
    "NeedsASlot": "empty_batches",
    "SmallBatches": "batches_of_128_pages",
    "KeepsWhatIsDeleted": "deleted_page_is_gone",
    "DeletesAreAlwaysTrue": "deleting_what_is_not_there_is_false",
    "ForgetsAtClose": "there_after_close_and_open",
    "IgnoresNamespaces": "key_in_two_namespaces",
    "ClearsEverything": "clear_empties_one_namespace",
    "ListsNothing": "listing_shows_each_object",
    "ListsItsOwnOnly": "listing_shows_each_object",
    "MarksItsNamespace": "opening_a_namespace_puts_nothing",
    "FirstRecordWins": "last_put_wins and plain",
    "CleansRecordNames": "records_of_like_names",
    "CutsRecords": "record_of_any_small_length and 4097",
    "NoEmptyRecords": "empty_record_is_not_a_missing",
    "TornRecords": "record_that_many_put_at_once",
    "TornPages": "readers_during_writes",
    "OneBufferForAll": "calls_of_many_threads",
    "KeepsForeignPages": "page_of_another_length_is_a_miss and shorter",
    "TakesMisfitsForMisses": "not_counted_as_a_plain_miss",
    "ServesForeignPages": "page_of_another_length_is_a_miss and longer",
    "Unbounded": "never_holds_more_than_its_bound",
    "EvictsTheOldest": "keeps_the_pages_that_are_used",
    "RaisesWhenFull": "full_store_answers_false",
    "EmptiesItselfWhenFull": "keeps_the_pages_that_are_used",
    "WordsInStats": "stats_are_finite_numbers",
    "IdleStats": "stats_change_with_use",
    "Hangs": "empty_batches",
}


@pytest.mark.parametrize("name", _FOUND_BY)
def test_a_broken_backend_fails_the_test_of_what_is_broken(
    name: str, pytester: pytest.Pytester, tmp_path: Path
) -> None:
    result = outcomes(pytester, broken(name, tmp_path), "-k", _FOUND_BY[name])
    assert result["failed"] > 0


def test_every_broken_backend_is_put_to_the_test() -> None:
    classes = inspect.getmembers(broken_backends, inspect.isclass)
    here = {name for name, found in classes if found.__module__ == broken_backends.MODULE}
    with_processes = {name for name in here if name.startswith(NEED_PROCESSES)}
    assert here - with_processes == set(_FOUND_BY)  # those: test_conformance_processes


def test_the_reference_passes_all_that_broken_backends_fail(pytester: pytest.Pytester) -> None:
    names = " or ".join(f"({name})" for name in set(_FOUND_BY.values()))
    result = outcomes(pytester, reference_spec("reference"), "-k", names)
    assert result["failed"] == result["skipped"] == 0 and result["passed"] > 30


def test_what_a_store_is_said_to_lack_is_skipped_and_not_passed(
    pytester: pytest.Pytester,
) -> None:
    fields = asdict(reference_spec("lacking"))
    lacking = BackendSpec(**fields | {"can_delete": False, "can_keep_records": False})
    result = outcomes(pytester, lacking, "-k", "deleted_page_is_gone or empty_record or two_proc")
    assert result == {"passed": 0, "skipped": 3, "failed": 0}


def test_a_listing_is_held_against_what_the_spec_says_of_it(pytester: pytest.Pytester) -> None:
    fields = asdict(reference_spec("listing"))
    for can_list, expected in ((True, "passed"), (False, "failed"), (None, "skipped")):
        spec = BackendSpec(**fields | {"can_list": can_list})
        assert outcomes(pytester, spec, "-k", "lists_where_its_spec_says_so")[expected] == 1


def test_a_class_without_a_spec_says_what_to_do(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        "from kvloop.shared_cache.conformance import BackendConformance\n"
        "class TestIt(BackendConformance): pass"
    )
    run = pytester.runpytest_inprocess("-q", "-k", "own_probe", "-p", "no:cacheprovider")
    run.stdout.fnmatch_lines(["*override the fixture `spec` with your backend's*"])


def test_the_environment_names_the_backend(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"root": "/here"}')
    environ = {
        "KVLOOP_CONFORMANCE_BACKEND": "dynamic",
        "KVLOOP_CONFORMANCE_CONFIG": f"@{tmp_path}/config.json",
        "KVLOOP_CONFORMANCE_MODULES": "acme.kv,acme.other",
        "KVLOOP_CONFORMANCE_LACKS": "can_delete,can_share",
        "KVLOOP_CONFORMANCE_BOUNDED": '{"near": {"sizes": ["$NUM_BYTES", 3]}, "root": "r"}',
    }
    spec = spec_from_environment(environ)
    assert spec is not None
    assert spec == BackendSpec(
        name="dynamic",
        extra_config={"root": "/here"},
        dynamic_modules=("acme.kv", "acme.other"),
        can_delete=False,
        can_share=False,
    )
    bounded = bounded_from_environment(spec, environ, 77)
    assert bounded is not None and not bounded.can_delete
    assert bounded.extra_config == {"near": {"sizes": [77, 3]}, "root": "r"}
    assert spec_from_environment({}) is None
    assert bounded_from_environment(spec, {}, 77) is None


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("CONFIG", "{", "must be JSON, or @FILE"),
        ("CONFIG", "[]", "must be a JSON object"),
        ("CONFIG", "@/nowhere.json", "No such file"),
        ("LACKS", "can_fly", "'can_fly' is no capability; known: can_share, can_delete"),
    ],
)
def test_a_wrong_variable_is_named(name: str, value: str, words: str) -> None:
    environ = {"KVLOOP_CONFORMANCE_BACKEND": "file", f"KVLOOP_CONFORMANCE_{name}": value}
    with pytest.raises(ConfigError, match=f"KVLOOP_CONFORMANCE_{name}") as caught:
        spec_from_environment(environ)
    assert words in str(caught.value)


def test_the_suite_runs_without_code_and_skips_where_no_backend_is_named(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("--pyargs", "kvloop.shared_cache.conformance", "-q", "-k", "first_set_wins")
    monkeypatch.delenv("KVLOOP_CONFORMANCE_BACKEND", raising=False)
    assert pytester.runpytest_inprocess(*arguments).parseoutcomes()["skipped"] == 1
    monkeypatch.setenv("KVLOOP_CONFORMANCE_BACKEND", "file")
    monkeypatch.setenv("KVLOOP_CONFORMANCE_CONFIG", json.dumps({"root": str(pytester.path / "l3")}))
    assert pytester.runpytest_inprocess(*arguments).parseoutcomes()["passed"] == 1


def test_each_test_of_the_suite_is_a_method_with_a_name_of_its_own() -> None:
    """A name in two of its parts would silently run once."""
    names = [
        name
        for part in BackendConformance.__mro__
        for name in vars(part)
        if name.startswith("test_")
    ]
    assert len(names) == len(set(names)) > 50
