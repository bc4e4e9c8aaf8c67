#!/usr/bin/env python3
"""Write docs/benchmarks/schema.json from the report's classes: run it after changing them."""

from pathlib import Path

from kvloop.benchmark.results.schema import render_schema

TARGET = Path(__file__).parent.parent / "docs" / "benchmarks" / "schema.json"

if __name__ == "__main__":
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(render_schema(), encoding="utf-8")
    print(TARGET)
