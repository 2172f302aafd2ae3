"""Render the API reference of the modules beyond the endpoint from their signatures and docstrings."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

from docs_source import is_property

MODULES = (
    *("local", "bulk", "scoring", "doctor", "view"),
    *("hooks", "sdkconfiguration", "otel", "lm_eval", "pytest_plugin"),
)

Definition = ast.FunctionDef | ast.ClassDef
_SECTION = re.compile(r"^(Args|Raises|Returns|Yields):$")
_ENTRY = re.compile(r"^    (\S[^:]*): (.*)$")


def reference_pages(source: Path, note: str) -> dict[str, str]:
    """Render a page for each module that exists, by path under docs/."""
    files = {name: path for name in MODULES if (path := _file_of(source, name))}
    return {f"reference/{name}.md": _page(name, path, note) for name, path in files.items()}


def _file_of(source: Path, name: str) -> Path | None:
    return next((path for path in (source / f"{name}.py", source / name / "__init__.py") if path.is_file()), None)


def _page(name: str, path: Path, note: str) -> str:
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    parts = [f"# gpt.{name}", note, as_markdown(ast.get_docstring(tree) or "")]
    for constant, value, text in _constants(tree, source):
        parts += [f"## {constant}", f"```python notest\n{constant} = {value}\n```", text]
    for definition in _public(tree, path):
        parts += _class(definition) if isinstance(definition, ast.ClassDef) else _function(definition, "##")
    return "\n\n".join(part for part in parts if part) + "\n"


def _public(tree: ast.Module, path: Path) -> Iterator[Definition]:
    """Find the definitions that `__all__` names, here or in the files that a package's `__init__` imports them from."""
    found = {}
    for node in tree.body:
        if isinstance(node, Definition):
            found[node.name] = node
        elif isinstance(node, ast.ImportFrom) and node.level == 1 and path.name == "__init__.py":
            inner = ast.parse((path.parent / f"{node.module}.py").read_text(encoding="utf-8"))
            found |= {item.name: item for item in inner.body if isinstance(item, Definition)}
    return (found[name] for name in _exported(tree) if name in found)


def _constants(tree: ast.Module, source: str) -> Iterator[tuple[str, str, str]]:
    """Yield name, value and docstring of the constants and type aliases that `__all__` names."""
    for item, after in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(item, ast.Assign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            name = ast.unparse(item.targets[0])
            if name in _exported(tree):
                yield name, ast.get_source_segment(source, item.value) or "", inspect.cleandoc(str(after.value.value))


def _exported(tree: ast.Module) -> list[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return sorted(ast.literal_eval(node.value), key=lambda name: (name[0].isupper(), name))
    names = [node.name for node in tree.body if isinstance(node, Definition)]
    return [name for name in names if not name.startswith(("_", "pytest_"))]


def _function(node: ast.FunctionDef, heading: str, owner: str = "") -> list[str]:
    name = f"{owner}.{node.name}" if owner else node.name
    return [f"{heading} {name}", _signature(node, name), as_markdown(ast.get_docstring(node) or "")]


def _class(node: ast.ClassDef) -> list[str]:
    parts = [f"## {node.name}"]
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            parts.append(_signature(item, node.name, constructs=True))
    parts += [as_markdown(ast.get_docstring(node) or ""), _fields(node)]
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and not item.name.startswith("_") and ast.get_docstring(item):
            parts += [] if is_property(item) else _function(item, "###", node.name)
    return parts


def _fields(node: ast.ClassDef) -> str:
    rows = [f"- `{name}`: {text}" for name, text in _described(node)]
    return "\n".join(rows)


def _described(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for item, after in zip(node.body, [*node.body[1:], ast.Pass()], strict=True):
        if isinstance(item, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            text = inspect.cleandoc(str(after.value.value))
            yield f"{ast.unparse(item.target)}: {ast.unparse(item.annotation)}", " ".join(text.split())
        elif isinstance(item, ast.FunctionDef) and is_property(item) and not item.name.startswith("_"):
            yield f"{item.name}: {_unparse(item.returns)}", " ".join((ast.get_docstring(item) or "").split())


def _unparse(node: ast.expr | None) -> str:
    return "None" if node is None else ast.unparse(node)


def _signature(node: ast.FunctionDef, name: str, *, constructs: bool = False) -> str:
    """Render a call as it is written, one argument a line where it would be long."""
    arguments = [argument for argument in _arguments(node) if argument not in ("self", "cls")]
    returns = "" if constructs or node.returns is None else f" -> {ast.unparse(node.returns)}"
    line = f"{name}({', '.join(arguments)}){returns}"
    if len(line) > 100:
        line = f"{name}(\n" + "".join(f"    {argument},\n" for argument in arguments) + f"){returns}"
    return f"```python notest\n{line}\n```"


def _arguments(node: ast.FunctionDef) -> Iterator[str]:
    given = node.args
    plain = [*given.posonlyargs, *given.args]
    defaults: list[ast.expr | None] = [*[None] * (len(plain) - len(given.defaults)), *given.defaults]
    yield from (_argument(item, default) for item, default in zip(plain, defaults, strict=True))
    if given.vararg:
        yield f"*{_argument(given.vararg, None)}"
    elif given.kwonlyargs:
        yield "*"
    yield from (_argument(item, default) for item, default in zip(given.kwonlyargs, given.kw_defaults, strict=True))
    if given.kwarg:
        yield f"**{_argument(given.kwarg, None)}"


def _argument(item: ast.arg, default: ast.expr | None) -> str:
    text = f"{item.arg}: {ast.unparse(item.annotation)}" if item.annotation else item.arg
    if default is None:
        return text
    return f"{text} = {ast.unparse(default)}" if item.annotation else f"{text}={ast.unparse(default)}"


def as_markdown(docstring: str) -> str:
    """Turn the sections of a docstring (`Args:`, `Raises:`) into lists; the rest is Markdown already."""
    lines: list[str] = []
    section = ""
    for line in docstring.splitlines():
        if found := _SECTION.match(line):
            section = found[1]
            lines += [f"**{section}**", ""]
        elif section in ("Args", "Raises") and (entry := _ENTRY.match(line)):
            lines.append(f"- `{entry[1]}`: {entry[2]}")
        elif section in ("Args", "Raises") and line.startswith("        "):
            lines.append(f"  {line.strip()}")
        else:
            section = section if line.startswith(" ") else ""
            lines.append(line.strip() if section else line)
    return "\n".join(lines).strip()
