"""Run with lists of words, one JSON list a line: what SGLang's own parser and checks make of them.

A process of its own: importing SGLang takes half a minute and leaves its stand-ins behind.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from typing import Any

from sglang_wheel import sglang_runtime

_CHECKS = (
    ("hicache_hook", "handle_hicache_ratio_default"),
    ("kv_cache_hook", "handle_cache_compatibility"),
    ("pd_disaggregation_hook", "handle_pd_disaggregation"),
    ("hicache_hook", "handle_hicache"),
)
"""SGLang's, in its order: those that need neither model nor device."""


def main() -> None:
    """One JSON object a line: fields as given and as SGLang resolves them, or an error."""
    server_args = sglang_runtime("sglang.srt.server_args").ServerArgs
    parser = argparse.ArgumentParser(exit_on_error=False)
    server_args.add_cli_args(parser)
    for line in sys.stdin:
        print(json.dumps(_checked(server_args, parser, json.loads(line))), flush=True)


def _checked(server_args: Any, parser: argparse.ArgumentParser, words: list[str]) -> dict[str, Any]:
    try:
        made = server_args.from_cli_args(parser.parse_args(words))
        given = {name: getattr(made, name) for name in _names(made)}
        made._raw_input, made._resolved_overrides = {}, []
        for module, check in _CHECKS:
            getattr(importlib.import_module(f"sglang.srt.arg_groups.{module}"), check)(made)
    except (Exception, SystemExit) as error:
        return {"error": f"{type(error).__name__}: {error}"}
    view = importlib.import_module("sglang.srt.arg_groups.overrides").resolving_view(made)
    return {"given": given, "resolved": {name: getattr(view, name) for name in _names(made)}}


def _names(made: Any) -> list[str]:
    """Fields that JSON can hold."""
    plain = (str, int, float, bool, type(None))
    names = importlib.import_module("sglang.srt.arg_groups.arg_utils").record_fields(type(made))
    return [field.name for field in names if isinstance(getattr(made, field.name), plain)]


if __name__ == "__main__":
    main()
