"""The documentation is true: its examples run, its links lead somewhere, its generated pages match the source."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpt import local

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
READERS_SERVERS = ("http://localhost:8000/v1", "http://localhost:8080/v1")
"""Where pages say that the reader's own server is, with the command that starts it."""
RETIRED = re.compile("davinci-002|babbage-002|gpt-3.5-turbo-instruct")

_BLOCK = re.compile(r"^```(?P<info>[^\n]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\((?P<target>[^)\s]+)\)")
_CODE_SPAN = re.compile(r"(`+).+?\1")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def examples(page: Path) -> Iterator[tuple[int, str]]:
    """Yield the first line and the code of each block that is marked ```python and nothing else."""
    text = page.read_text(encoding="utf-8")
    for block in _BLOCK.finditer(text):
        if block["info"].strip() == "python":
            yield text.count("\n", 0, block.start("code")), block["code"]


def prose(page: Path) -> str:
    """Return a page without its code."""
    return _CODE_SPAN.sub("`code`", _BLOCK.sub("", page.read_text(encoding="utf-8")))


def links(page: Path) -> list[str]:
    text = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    return [link["target"] for link in _LINK.finditer(text) if "://" not in link["target"]]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    text = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


PAGES_WITH_EXAMPLES = [page for page in PAGES if any(examples(page))]


@pytest.mark.parametrize("page", PAGES_WITH_EXAMPLES, ids=name_of)
def test_docs_examples_of_each_page_run_as_written(
    page: Path, local_server: local.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The examples of a page run as written, one after the other; only the reader's server is a local one."""
    monkeypatch.setenv("OPENAI_BASE_URL", local_server.url)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    for line, code in examples(page):
        for url in READERS_SERVERS:
            code = code.replace(url, local_server.url)
        # The blank lines make tracebacks show the page's own line numbers.
        exec(compile("\n" * line + code, str(page), "exec"), namespace)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_docs_links_of_each_page_lead_to_a_file_and_heading(page: Path) -> None:
    """Every relative link leads to a file, and to a heading of it where it names one."""
    dead = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert dead == []


def test_docs_index_links_every_page() -> None:
    """Every guide, SDK page and reference page is linked from the index."""
    linked = {(DOCS / link.partition("#")[0]).resolve() for link in links(DOCS / "README.md")}
    wanted = {*DOCS.glob("*.md"), *DOCS.glob("guides/*.md"), *DOCS.glob("sdks/*/*.md"), *DOCS.glob("reference/*.md")}
    assert sorted(map(name_of, wanted - linked - {DOCS / "README.md"})) == []


def test_docs_completions_page_keeps_the_headings_and_links_of_2023() -> None:
    """The page of the endpoint has the headings, the table and the links that users of the 2023 SDK know."""
    text = (DOCS / "sdks" / "completions" / "README.md").read_text(encoding="utf-8")
    headings = re.findall(r"^#+ .+$", text, re.MULTILINE)
    assert headings[:3] == ["# Completions", "## Overview", "### Available Operations"]
    assert headings[3:7] == ["## create_completion", "### Example Usage", "### Parameters", "### Response"]
    request = "[shared.CreateCompletionRequest](../../models/shared/createcompletionrequest.md)"
    assert f"| `request` | {request} | :heavy_check_mark: | The request object to use for the request. |" in text
    response = "[operations.CreateCompletionResponse](../../models/operations/createcompletionresponse.md)"
    assert f"### Response\n\n**{response}**\n" in text
    assert "* [create_completion](#create_completion) - " in text


def test_docs_model_pages_are_linked_from_another_page() -> None:
    """Every model page is linked from another page."""
    linked = {(page.parent / link.partition("#")[0]).resolve() for page in PAGES for link in links(page)}
    assert sorted(map(name_of, set(DOCS.glob("models/*/*.md")) - linked)) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_docs_pages_name_no_retired_model(page: Path) -> None:
    """No page names a retired model of OpenAI's but the specification's enum, the migration and troubleshooting."""
    allowed = ("createcompletionrequestmodel.md", "migrating-from-openai-python.md", "troubleshooting.md")
    assert page.name in allowed or RETIRED.findall(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", sorted((ROOT / "src").rglob("*.py")), ids=name_of)
def test_docs_in_the_source_name_no_retired_model(path: Path) -> None:
    """No docstring or help text names one of OpenAI's retired models, but for the enum of the specification."""
    allowed = path.name == "createcompletionrequest.py"
    assert allowed or RETIRED.findall(path.read_text(encoding="utf-8")) == []


def test_docs_readme_has_at_most_120_lines() -> None:
    """The README has at most 120 lines."""
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_docs_readme_links_the_index() -> None:
    """From the README every guide is two clicks away."""
    assert "docs/README.md" in links(ROOT / "README.md")


def test_docs_usage_example_is_between_its_markers() -> None:
    """USAGE.md carries its example between the markers that other tools look for."""
    text = (ROOT / "USAGE.md").read_text(encoding="utf-8")
    before, marked, after = re.split("<!-- (?:Start|End) SDK Example Usage -->", text)
    assert "create_completion" in marked
    assert "```" not in before + after


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_docs_install_commands_never_name_the_foreign_gpt_package(page: Path) -> None:
    """No page installs `gpt` from the index, where that name is someone else's project."""
    assert re.findall(r"pip install (?:\S+ )*['\"]?gpt(?![\w-])[^\n]*", page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_docs_examples_that_do_not_run_give_a_reason(page: Path) -> None:
    """A block of Python that is not run is marked, with the reason, or is a bare signature of the reference."""
    infos = [block["info"].strip() for block in _BLOCK.finditer(page.read_text(encoding="utf-8"))]
    unrun = [info for info in infos if info.startswith("py") and info != "python"]
    if page.parent.name != "reference":
        assert [info for info in unrun if not re.fullmatch(r"python notest: .+", info)] == []


def test_docs_generated_pages_match_the_source() -> None:
    """The model pages and the API reference are what the docstrings say."""
    done = subprocess.run(
        [sys.executable, "tools/generate_docs.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_generate_docs_check_given_drift_names_each_page(tmp_path: Path) -> None:
    """The check names a page that was edited, one that is missing and one that no class stands behind."""
    for name in ("src", "tools", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.gguf", "__pycache__"))
    models = tmp_path / "docs" / "models"
    script = tmp_path / "tools" / "generate_docs.py"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "src")}
    subprocess.run([sys.executable, script], check=True, env=environment)
    intact = (models / "shared" / "security.md").read_text()

    (models / "shared" / "security.md").write_text("edited")
    (models / "errors" / "README.md").unlink()
    (models / "shared" / "leftover.md").write_text("from a class of old")
    done = subprocess.run(
        [sys.executable, script, "--check"], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 1
    assert [line.split()[0] for line in done.stderr.splitlines()] == [
        "docs/models/errors/README.md",
        "docs/models/shared/leftover.md",
        "docs/models/shared/security.md",
    ]

    subprocess.run([sys.executable, script], check=True, env=environment)
    assert (models / "shared" / "security.md").read_text() == intact
    assert not (models / "shared" / "leftover.md").exists()
