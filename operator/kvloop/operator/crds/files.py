"""The generated files: the CRDs in the chart, and the fields in the docs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from kvloop.operator.crds.definition import definition
from kvloop.operator.crds.kinds import KINDS
from kvloop.operator.crds.reference import with_fields

_ROOT = Path(__file__).parents[4]
FOLDER = _ROOT / "charts" / "kvloop" / "files" / "crds"
PAGE = _ROOT / "docs" / "resources.md"
_HEAD = "# Made from the types in operator/ by `python -m kvloop.operator.crds`; do not edit.\n"
_WIDTH = 1 << 20


def contents() -> dict[str, str]:
    """Text by file name."""
    return {f"{kind.plural}.yaml": _HEAD + _yaml(definition(kind)) for kind in KINDS}


class _Dumper(yaml.SafeDumper):
    """Repeats what is equal. Rules take one line, so that charts can leave them out for API
    servers whose kubectl or Helm refuses to send what they do not know (before 1.25)."""

    def ignore_aliases(self, data: object) -> bool:
        return True

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> Any:
        node = super().represent_mapping(tag, mapping, flow_style)
        for key, value in node.value:
            if key.value == "x-kubernetes-validations":
                value.flow_style = True
        return node


def _yaml(document: object) -> str:
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=_WIDTH, allow_unicode=True)


def write(folder: Path, page: Path) -> None:
    """Make the files anew, and the page's part about fields."""
    page.write_text(with_fields(page.read_text()))
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in contents().items():
        (folder / name).write_text(text)


def differing(folder: Path, page: Path) -> list[str]:
    """Names of files that are not what the types say, or that are no kind's."""
    text = page.read_text()
    return [*_differing(folder), *([page.name] if with_fields(text) != text else [])]


def _differing(folder: Path) -> list[str]:
    wanted = contents()
    there = {path.name: path.read_text() for path in folder.glob("*.yaml")}
    return sorted(name for name in wanted | there if wanted.get(name) != there.get(name))
