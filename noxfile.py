"""The project's tasks: `nox -l` lists them, `nox -s lint` runs one, `nox -s tests -- tests/bulk -x` passes arguments.

`.ci/run` and the workflows call the same sessions. With `--no-venv` a session uses the environment that it is started
in and installs nothing.
"""

from __future__ import annotations

import nox

PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")

nox.needs_version = ">=2025.2"
nox.options.sessions = ["tests", "lint", "types", "docs"]
nox.options.reuse_venv = "yes"


def install(session: nox.Session, *packages: str) -> None:
    """Install packages, unless the session runs without an environment of its own."""
    if session.venv_backend != "none":
        session.install(*packages)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests as the README does."""
    install(session, "-e", ".[test]")
    session.run("pytest", *session.posargs)


@nox.session(name="tests-all", python=PYTHONS)
def tests_all(session: nox.Session) -> None:
    """Run the tests on every Python that is supported and installed."""
    session.install("-e", ".[test]")
    session.run("pytest", *session.posargs)


@nox.session(python="3.10", venv_backend="uv", default=False)
def lowest(session: nox.Session) -> None:
    """Run the tests with the oldest dependencies that pyproject.toml allows."""
    session.install("--resolution", "lowest-direct", "-e", ".[test]")
    session.run("pytest", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Run the tests and fail if branch coverage, worker processes included, falls below the gate in pyproject.toml."""
    install(session, "-e", ".[dev]")
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *session.posargs)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report", "--skip-covered", "--show-missing")


@nox.session
def lint(session: nox.Session) -> None:
    """Check the code's style and its format."""
    install(session, "ruff>=0.11")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types with mypy and basedpyright."""
    install(session, "-e", ".[dev]")
    session.run("mypy")
    session.run("basedpyright")


@nox.session
def docs(session: nox.Session) -> None:
    """Check that the generated pages match the docstrings, and build the site; `-- serve` shows it while you write."""
    install(session, "-e", ".[dev]")
    session.run("python", "tools/generate_docs.py", "--check")
    command = session.posargs or ("build", "--strict", "--quiet")
    session.run("python", "-m", "mkdocs", *command, env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session
def package(session: nox.Session) -> None:
    """Build the wheel and the sdist, and run the sdist's own tests against the wheel."""
    install(session, "build", "twine")
    out = session.create_tmp()
    session.run("python", "-m", "build", "--outdir", out)
    session.run("python", "tools/check_package.py", out, *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Compare the speed with the figures that are published, on this machine."""
    install(session, "-e", ".[test,bench]")
    session.run("python", "benchmarks/compare.py", *(session.posargs or ("--check",)))
