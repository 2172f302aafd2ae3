"""Read the public classes of a package from its source: fields, docstrings, members. Imports and runs nothing of it."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Member:
    """A field, an attribute, a property or a member of an enum."""

    name: str
    type: str
    """The annotation as written; empty for a member of an enum."""
    default: str | None
    """The default, or the value of a member of an enum, as written; `None` for a required field."""
    text: str
    """The docstring below it, on one line."""
    is_property: bool = False


@dataclass(frozen=True)
class Class:
    """A public class as its source describes it."""

    package: str
    name: str
    bases: tuple[str, ...]
    text: str
    """The class's docstring."""
    members: tuple[Member, ...]
    methods: tuple[ast.FunctionDef, ...]
    """The public methods that have a docstring."""
    module_text: str
    """The docstring of the module around it."""
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)
    """What the module's names stand for: package and real name."""

    @property
    def is_enum(self) -> bool:
        """Whether its members are values."""
        return "Enum" in self.bases


def read_package(folder: Path, packages: tuple[str, ...]) -> list[Class]:
    """Read the classes that a package's `__init__` exports, in the order of its imports."""
    found = []
    for node in parse(folder / "__init__.py").body:
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module:
            names = {alias.name for alias in node.names}
            found += [cls for cls in read_module(folder / f"{node.module}.py", packages) if cls.name in names]
    return found


def read_module(path: Path, packages: tuple[str, ...]) -> Iterator[Class]:
    """Read the classes of one file."""
    tree = parse(path)
    imports = _imports(tree, path.parent.name, packages)
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield Class(
                package=path.parent.name,
                name=node.name,
                bases=tuple(ast.unparse(base) for base in node.bases),
                text=ast.get_docstring(node) or "",
                members=tuple(_members(node)),
                methods=tuple(_methods(node)),
                module_text=ast.get_docstring(tree) or "",
                imports=imports,
            )


def parse(path: Path) -> ast.Module:
    """Parse a file."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def _imports(tree: ast.Module, own: str, packages: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    found = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.level:
            parts = (node.module or "").split(".")
            package = next((part for part in parts if part in packages), own)
            found.update({alias.asname or alias.name: (package, alias.name) for alias in node.names})
    return found


def _members(node: ast.ClassDef) -> Iterator[Member]:
    """Yield what is public in a class's body and has a docstring of its own."""
    is_enum = any(ast.unparse(base) == "Enum" for base in node.bases)
    for item, after in zip(node.body, [*node.body[1:], None], strict=True):
        text = _one_line(_string(after))
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and _is_field(item, text):
            yield Member(item.target.id, ast.unparse(item.annotation), _unparse(item.value), text)
        elif isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name) and is_enum:
            yield Member(item.targets[0].id, "", ast.unparse(item.value), text)
        elif isinstance(item, ast.FunctionDef) and is_property(item) and not item.name.startswith("_"):
            yield Member(item.name, _unparse(item.returns) or "", "", _one_line(ast.get_docstring(item) or ""), True)


def _methods(node: ast.ClassDef) -> Iterator[ast.FunctionDef]:
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and not is_property(item) and _is_public(item):
            yield item


def _is_public(item: ast.FunctionDef) -> bool:
    return bool(ast.get_docstring(item)) and not item.name.startswith("_")


def _is_field(item: ast.AnnAssign, text: str) -> bool:
    return bool(text) and not ast.unparse(item.annotation).startswith("ClassVar")


def is_property(item: ast.FunctionDef) -> bool:
    """Tell a property from a method."""
    return any(ast.unparse(decorator) in ("property", "cached_property") for decorator in item.decorator_list)


def _string(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return inspect.cleandoc(node.value.value)
    return ""


def _unparse(node: ast.expr | None) -> str | None:
    return None if node is None else ast.unparse(node)


def _one_line(text: str) -> str:
    return " ".join(text.split())
