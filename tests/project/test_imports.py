"""Imports point one way, and `import gpt` stays light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import gpt

ROOT = Path(gpt.__file__).parent

LAYERS: list[tuple[str, ...]] = [
    ("_version", "_core"),
    ("utils",),
    ("models", "hooks"),
    ("sdkconfiguration",),
    ("_http",),
    ("_parsing",),
    ("completions",),
    ("sdk",),
    ("",),
    ("bulk", "view", "local"),
    ("scoring", "doctor", "otel"),
    ("pytest_plugin", "lm_eval", "cli"),
    ("__main__",),
]
"""From the bottom to the top: a module imports from its own layer's package or from layers below. `""` is `gpt`."""

LAZY_BACKWARDS = {("models", "view"): "a notebook shows a completion with its own `_repr_html_`"}
HEAVY = (
    "typer",
    "rich",
    "click",
    "xllamacpp",
    "distributed",
    "dask",
    "numpy",
    "asyncio",
    "marshmallow.fields",
    "pytest",
    "multiprocessing",
)


def package_of(name: str) -> str:
    """Return the entry of `LAYERS` that a module, named below `gpt`, belongs to."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        if any(".".join(parts[:length]) in layer for layer in LAYERS):
            return ".".join(parts[:length])
    return "" if name == "" else name


def height(package: str) -> int:
    """Return the number of a package's layer."""
    found = [number for number, layer in enumerate(LAYERS) if package in layer]
    assert found, f"{package}: give it a place in LAYERS"
    return found[0]


def imports_of(path: Path) -> Iterator[tuple[str, int]]:
    """Yield what a file imports of gpt, as names below `gpt`, with the line."""
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((each.name[4:], node.lineno) for each in node.names if f"{each.name}.".startswith("gpt."))
        elif isinstance(node, ast.ImportFrom):
            module = (node.module or "").split(".") if node.module else []
            if node.level:
                base = [*package[: len(package) - node.level + 1], *module]
            elif module[0] == "gpt":
                base = module[1:]
            else:
                continue
            yield from ((_module([*base, each.name]), node.lineno) for each in node.names)


def _module(parts: list[str]) -> str:
    """Tell a submodule that is imported from a name that is imported out of its package."""
    path = ROOT.joinpath(*parts)
    return ".".join(parts if path.is_dir() or path.with_suffix(".py").exists() else parts[:-1])


def name_of(path: Path) -> str:
    """Return a file's module below `gpt`."""
    return ".".join(part for part in path.relative_to(ROOT).with_suffix("").parts if part != "__init__")


FILES = sorted(path for path in ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_of_each_module_point_to_lower_layers(path: Path) -> None:
    """No module imports from a layer above its own, lazily or not, but for the exceptions that are named."""
    own = package_of(name_of(path))
    for name, line in imports_of(path):
        other = package_of(name)
        if other == own or (own, other) in LAZY_BACKWARDS:
            continue
        assert height(other) < height(own), (
            f"{path.relative_to(ROOT)}:{line} ({own}) imports {name or 'gpt'} from above"
        )


@pytest.mark.parametrize("path", [path for path in FILES if path.parent.name == "_core"], ids=lambda path: path.name)
def test_imports_of_core_stay_within_core(path: Path) -> None:
    """What is in `_core` could serve any client: it imports nothing of ours but itself."""
    assert {package_of(name) for name, _ in imports_of(path)} <= {"_core"}


def test_imports_layers_list_every_module() -> None:
    """Every module belongs to an entry of the order, and every entry is there."""
    found = {package_of(name_of(path)) for path in FILES}
    assert found == {name for layer in LAYERS for name in layer}


def test_imports_picture_shows_the_layers() -> None:
    """The picture of the architecture has the same layers in the same order, from the top to the bottom."""
    picture = (ROOT.parents[1] / "docs" / "images" / "architecture.svg").read_text(encoding="utf-8")
    drawn = [set(names.split(" · ")) for names in re.findall(r'font-weight="600">([^<]+)<', picture)]
    apart = {"", "__main__", "_version"}
    assert drawn == [set(layer) - apart for layer in reversed(LAYERS) if set(layer) - apart]


def loaded_by(code: str) -> set[str]:
    """Return the modules that are loaded in a fresh interpreter after some code."""
    code += "; import sys; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    return set(done.stdout.split())


def test_imports_of_gpt_load_no_heavy_module() -> None:
    """`import gpt` loads requests and the models, and nothing that a client does not need."""
    modules = loaded_by("import gpt")
    assert {"requests", "gpt._http.transport", "gpt.models.shared"} <= modules
    # dataclasses-json itself loads marshmallow; what else is heavy stays out.
    assert {name for name in HEAVY if name in modules} <= {"marshmallow.fields"}
    apart = ("gpt.local", "gpt.bulk", "gpt.scoring", "gpt.doctor", "gpt.view", "gpt.cli", "gpt.pytest_plugin")
    assert not [name for name in modules if name.startswith(apart)]


def test_imports_of_a_failed_call_load_no_heavy_module() -> None:
    """Making a client and failing a call load no heavy module either."""
    code = (
        "import gpt; from gpt.models import shared; from gpt.utils import RetryConfig\n"
        "s = gpt.Gpt(server_url='http://127.0.0.1:9/v1', retry_config=RetryConfig('none'))\n"
        "try: s.completions.create_completion(shared.CreateCompletionRequest(model='m', prompt='p'))\n"
        "except gpt.models.errors.APIConnectionError: pass\n"
        "0"
    )
    modules = loaded_by(code)
    assert {name for name in HEAVY if name in modules} <= {"marshmallow.fields"}
