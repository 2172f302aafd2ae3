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


def page_of(package: str, name: str) -> str:
    """Give the path of a class's page under docs/."""
    return f"models/{package}/{name.lower()}.md"


def model_pages(classes: Iterable[Class]) -> Pages:
    """Render a page for each class."""
    known = {(cls.package, cls.name): cls for cls in classes}
    return {page_of(*key): _page(cls, known) for key, cls in known.items()}


def _page(cls: Class, known: dict[tuple[str, str], Class]) -> str:
    parts = [f"# {cls.name}", NOTE, cls.text, *_lineage(cls, known)]
    if cls.is_enum:
        parts += ["## Values", _table(("Name", "Value", "Description"), map(_value_row, cls.members))]
    elif cls.package == "errors":
        parts += ["## Attributes", _attributes([m for c in reversed(_line(cls, known)) for m in c.members], cls, known)]
    else:
        parts += _fields(cls, known)
    parts += _methods(cls)
    return _linked("\n\n".join(part for part in parts if part) + "\n", cls, known)


def _linked(text: str, cls: Class, known: dict[tuple[str, str], Class]) -> str:
    """Link the classes that the prose names as code; where two have one name, the one of the page's own package."""

    def link(match: re.Match[str]) -> str:
        keys = [key for key in known if key[1] == match[1] and key != (cls.package, cls.name)]
        own = next((key for key in keys if key[0] == cls.package), keys[0] if keys else None)
        return f"[`{match[1]}`](../{own[0]}/{own[1].lower()}.md)" if own else match[0]

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
        parts += ["## Computed when asked for", _attributes(computed, cls, known)]
    return parts


def _required(member: Member) -> str:
    return ":heavy_check_mark:" if member.default is None else ":heavy_minus_sign:"


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


def _lineage(cls: Class, known: dict[tuple[str, str], Class]) -> list[str]:
    """Show where an error stands in the tree."""
    if cls.package != "errors":
        return []
    tree = cls.module_text[cls.module_text.index("SDKError") :]
    above = [f"[`{base.name}`]({base.name.lower()}.md)" for base in _line(cls, known)[1:]]
    return [f"Also caught as {', '.join(above)}." if above else "", f"```text\n{tree}\n```"]


def _line(cls: Class, known: dict[tuple[str, str], Class]) -> list[Class]:
    """Give a class and those it inherits from, itself first."""
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
            parts.append(f"[`{key[0]}.{key[1]}`](../{key[0]}/{key[1].lower()}.md)")
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
