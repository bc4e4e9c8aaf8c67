"""The outlets that a command's flags ask for, checked before the run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kvloop.benchmark.outlets.config_map import ConfigMapTarget, parse_target
from kvloop.benchmark.outlets.in_cluster import MOUNT, InCluster
from kvloop.benchmark.outlets.publish import Outlets, RunFailure, publish
from kvloop.shared_cache.errors import ConfigError

TERMINATION_VARIABLE = "KVLOOP_TERMINATION_LOG"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """As the flags have it."""

    json_file: Path | None = None
    with_samples: bool = True
    page_file: Path | None = None
    termination_file: Path | None = None
    """None: what KVLOOP_TERMINATION_LOG says, if it does."""
    config_map: str | None = None
    """NAME or NAMESPACE/NAME."""


def open_outlets(wanted: Wanted, environment: Mapping[str, str], mount: Path = MOUNT) -> Outlets:
    """A mistake should cost no run. Raises ConfigError, which the termination message says too."""
    termination = wanted.termination_file or _named(environment)
    try:
        for flag, file in (("--json", wanted.json_file), ("--html", wanted.page_file)):
            _require_place(flag, file)
        _require_different(wanted)
        _require_place("--termination-message", termination)
        target = _target(wanted, environment, mount)
    except ConfigError as error:
        _tell(error, termination)
        raise
    return Outlets(
        json_file=wanted.json_file,
        with_samples=wanted.with_samples,
        page_file=wanted.page_file,
        config_map=target,
        termination_file=termination,
    )


def tell_refusal(error: ConfigError, wanted: Wanted, environment: Mapping[str, str]) -> None:
    """Say in the termination message which flag was wrong, of a run that never began."""
    _tell(error, wanted.termination_file or _named(environment))


def _tell(error: ConfigError, termination: Path | None) -> None:
    failure = RunFailure(reason="BadInput", message=str(error), exit_status=2)
    publish(failure, Outlets(termination_file=termination), lambda report: "", lambda words: None)


def _named(environment: Mapping[str, str]) -> Path | None:
    name = environment.get(TERMINATION_VARIABLE)
    return Path(name) if name else None


def _require_place(flag: str, file: Path | None) -> None:
    if file is None:
        return
    if file.is_dir():
        raise ConfigError(f"{flag} {file}: is a directory; name a file in it")
    folder = file.absolute().parent
    if not folder.is_dir():
        raise ConfigError(f"{flag} {file}: there is no directory {folder}")
    if not os.access(file if file.exists() else folder, os.W_OK):
        raise ConfigError(f"{flag} {file}: must not be written by this user")


def _require_different(wanted: Wanted) -> None:
    files = wanted.json_file, wanted.page_file
    if files[0] is not None and files[1] is not None and files[0].resolve() == files[1].resolve():
        raise ConfigError(f"--json and --html both name {files[0]}; each needs a file of its own")


def _target(wanted: Wanted, environment: Mapping[str, str], mount: Path) -> ConfigMapTarget | None:
    if wanted.config_map is None:
        return None
    return parse_target(wanted.config_map, environment, InCluster.found(environment, mount))
