"""Bring the pages at the repository's root into the site, so that every page is one file and reads on GitHub as well.

README.md becomes the home page, and docs/README.md, which GitHub shows for the folder, the page `contents.md`.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
MOVED = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "docs/README.md": "contents.md",
}
"""Path in the repository to path in the site. Every other page is at its path below docs/."""

_NOTEST = re.compile(r"^(```python) notest: .*$", re.MULTILINE)
"""Why the tests do not run an example; Python-Markdown wants the language alone."""

_CELL_CODE = re.compile(r"`[^`\n]*\\\|[^`\n]*`")
"""Code with an escaped bar, which GitHub needs in a table, and which Python-Markdown would show with its backslash."""

_LINK = re.compile(r"(\]\()([^)\s#:]+)(#[^)\s]*)?(\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the moved pages and expand the navigation's folders."""
    if (index := files.get_file_from_path("README.md")) is not None:
        files.remove(index)
    for path, uri in MOVED.items():
        files.append(File.generated(config, uri, content=(ROOT / path).read_text(encoding="utf-8")))
    _expand(config.nav or [], files)
    return files


def _expand(items: list[Any], files: Files) -> None:
    """Replace each folder in the navigation by its pages, so that a new generated page needs no entry."""
    for item in items:
        for title, value in item.items() if isinstance(item, dict) else ():
            if isinstance(value, list):
                _expand(value, files)
            elif value.endswith("/"):
                item[title] = sorted(f.src_uri for f in files.documentation_pages() if f.src_uri.startswith(value))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point the links, which are right in the repository, to where the site has their pages."""
    here = page.file.src_uri
    source = next((path for path, uri in MOVED.items() if uri == here), f"docs/{here}")

    def moved(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), link[2]))
        target = MOVED.get(path, path.removeprefix("docs/"))
        return f"{link[1]}{posixpath.relpath(target, posixpath.dirname(here) or '.')}{link[3] or ''}{link[4]}"

    return _LINK.sub(moved, _as_python_markdown(markdown))


def _as_python_markdown(text: str) -> str:
    """Turn what GitHub reads differently into what Python-Markdown wants."""
    text = _CELL_CODE.sub(lambda code: code[0].replace("\\|", "|"), text)
    return _NOTEST.sub(r"\1", text).replace(":heavy_check_mark:", "✔")
