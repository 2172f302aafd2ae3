"""Write the model pages and the API reference under docs/ from the source; `--check` says which pages have drifted.

The pages are what the docstrings say, so the way to change one is to change its docstring and run this again.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from cli_page import cli_page
from docs_source import Class, Member, read_module, read_package
from reference_pages import reference_pages

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "gpt"
DOCS = ROOT / "docs"
PACKAGES = ("shared", "operations", "errors", "utils")
UTILITIES = {"retries.py": ("RetryConfig", "BackoffStrategy"), "eventstreaming.py": ("EventStream",)}
GENERATED = (*(f"models/{package}" for package in PACKAGES), "reference")
NOTE = "<!-- Written by tools/generate_docs.py from the docstrings: change those and run it again. -->"
AS_JSON = """\
## As JSON

`to_dict()`, `to_json()`, `from_dict()` and `from_json()` save and restore it, with every field that a server added;
`schema()` is a marshmallow schema for JSON that comes from outside."""

Pages = dict[str, str]
"""Text by path under docs/."""


def read_classes() -> list[Class]:
    """Read every class that has a page."""
    models = [cls for name in PACKAGES[:3] for cls in read_package(SOURCE / "models" / name, PACKAGES)]
    utilities = [
        cls
        for file, names in UTILITIES.items()
        for cls in read_module(SOURCE / "utils" / file, PACKAGES)
        if cls.name in names
    ]
    return models + utilities


def target_of(package: str, name: str) -> str:
    """Return where a class is described, under docs/models: its page, or its heading on the page of all errors."""
    return f"errors/README.md#{name.lower()}" if package == "errors" else f"{package}/{name.lower()}.md"


def model_pages(classes: Iterable[Class]) -> Pages:
    """Render a page for each class, and one for all errors."""
    known = {(cls.package, cls.name): cls for cls in classes}
    pages = {f"models/{target_of(*key)}": _page(cls, known) for key, cls in known.items() if key[0] != "errors"}
    return pages | {
        "models/errors/README.md": _errors_page([c for c in known.values() if c.package == "errors"], known)
    }


def _page(cls: Class, known: dict[tuple[str, str], Class]) -> str:
    parts = [f"# {cls.name}", NOTE, cls.text]
    if cls.is_enum:
        parts += ["## Values", _table(("Name", "Value", "Description"), map(_value_row, cls.members))]
    else:
        parts += _fields(cls, known)
    parts += _methods(cls)
    parts += [AS_JSON] if "Model" in cls.bases else []
    return _linked(_joined(parts), cls, known)


def _errors_page(classes: list[Class], known: dict[tuple[str, str], Class]) -> str:
    """Render the tree of errors, the attributes that all have, and a section for each class."""
    root = next(cls for cls in classes if known.get((cls.package, cls.bases[0])) is None)
    tree = root.module_text[root.module_text.index(root.name) :]
    parts = ["# Errors", NOTE, f"The classes of `gpt.models.errors`.\n\n```text\n{tree}\n```"]
    for cls in classes:
        parts += [f"## {cls.name}", _linked(cls.text, cls, known), _caught_as(cls, known)]
        parts.append(_attributes(cls.members, cls, known) if cls.members else "")
    return _joined(parts)


def _joined(parts: Iterable[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"


def _linked(text: str, cls: Class, known: dict[tuple[str, str], Class]) -> str:
    """Link the classes that the prose names as code, but for one of the same name as the class that it describes."""

    def link(match: re.Match[str]) -> str:
        keys = [key for key in known if key[1] == match[1] != cls.name]
        own = next((key for key in keys if key[0] == cls.package), keys[0] if keys else None)
        return f"[`{match[1]}`](../{target_of(*own)})" if own else match[0]

    return re.sub(r"(?<![\[`])`([A-Z]\w+)`(?!\])", link, text)


def _fields(cls: Class, known: dict[tuple[str, str], Class]) -> list[str]:
    fields = [member for member in cls.members if not member.is_property]
    computed = [member for member in cls.members if member.is_property]
    parts = []
    if fields and cls.package == "utils":
        rows = [(f"`{m.name}`", _type(m, cls, known), _default(m), m.text) for m in fields]
        parts += ["## Fields", _table(("Field", "Type", "Default", "Description"), rows)]
    elif fields:
        rows = [(f"`{m.name}`", _type(m, cls, known), _required(m), m.text) for m in fields]
        parts += ["## Fields", _table(("Field", "Type", "Required", "Description"), rows)]
    if computed:
        parts += ["## Computed properties", _attributes(computed, cls, known)]
    return parts


def _required(member: Member) -> str:
    return "yes" if member.default is None else "no"


def _default(member: Member) -> str:
    factory = re.fullmatch(r"field\(default_factory=(\w+)\)", member.default or "")
    return f"`{factory[1]}()`" if factory else f"`{member.default}`" if member.default else ""


def _attributes(members: Iterable[Member], cls: Class, known: dict[tuple[str, str], Class]) -> str:
    rows = [(f"`{member.name}`", _type(member, cls, known), member.text) for member in members]
    return _table(("Attribute", "Type", "Description"), rows)


def _value_row(member: Member) -> tuple[str, ...]:
    return f"`{member.name}`", f"`{member.default}`", member.text


def _methods(cls: Class) -> list[str]:
    rows = [(f"`{item.name}()`", _first_paragraph(item)) for item in cls.methods]
    return ["## Methods", _table(("Method", "Description"), rows)] if rows and cls.package == "utils" else []


def _first_paragraph(item: ast.FunctionDef) -> str:
    return " ".join((ast.get_docstring(item) or "").split("\n\n")[0].split())


def _caught_as(cls: Class, known: dict[tuple[str, str], Class]) -> str:
    above = [f"[`{base.name}`](#{base.name.lower()})" for base in _line(cls, known)[1:]]
    return f"Also caught as {', '.join(above)}." if above else ""


def _line(cls: Class, known: dict[tuple[str, str], Class]) -> list[Class]:
    """Return a class and those it inherits from, itself first."""
    line = [cls]
    while base := known.get((cls.package, line[-1].bases[0] if line[-1].bases else "")):
        line.append(base)
    return line


def _type(member: Member, cls: Class, known: dict[tuple[str, str], Class]) -> str:
    """Render an annotation as code, with links to the pages of the classes in it."""
    parts = []
    for part in re.split(r"([A-Z]\w+)", member.type):
        key = cls.imports.get(part, (cls.package, part))
        if key in known:
            parts.append(f"[`{key[0]}.{key[1]}`](../{target_of(*key)})")
        elif parts and part and not parts[-1].startswith("["):
            parts[-1] += part
        else:
            parts.append(part)
    return "".join(part if part.startswith("[`") else _code(part) for part in parts if part)


def _code(text: str) -> str:
    """Render code, its outer blanks outside of the span, where they survive."""
    bare = text.strip()
    return text.replace(bare, f"`{bare}`") if bare else text


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head)]
    lines += [["---"] * len(lines[0]), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def drifted(pages: Pages) -> list[str]:
    """Name the pages that are missing, differ, or should not be there."""
    found = {path.relative_to(DOCS).as_posix() for name in GENERATED for path in (DOCS / name).glob("*.md")}
    differing = {name for name, text in pages.items() if not _holds(DOCS / name, text)}
    return sorted(differing | (found - pages.keys()))


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


def write(pages: Pages) -> None:
    """Write the pages and remove those that no class stands behind."""
    for name in drifted(pages):
        (DOCS / name).parent.mkdir(parents=True, exist_ok=True)
        if name in pages:
            (DOCS / name).write_text(pages[name], encoding="utf-8")
        else:
            (DOCS / name).unlink()


def main(arguments: list[str] | None = None) -> int:
    """Write the pages, or with `--check` say which ones would change and return 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a page has drifted")
    options = parser.parse_args(arguments)
    pages = model_pages(read_classes()) | reference_pages(SOURCE, NOTE) | {"cli.md": cli_page(NOTE)}
    if not options.check:
        write(pages)
        return 0
    names = drifted(pages)
    for name in names:
        print(f"docs/{name} is not what the source says; run: python tools/generate_docs.py", file=sys.stderr)
    return 1 if names else 0


if __name__ == "__main__":
    sys.exit(main())
