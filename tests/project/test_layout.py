"""Where tests are: one finds the tests of a module by its path."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
SOURCE = TESTS.parent / "src" / "gpt"

BEHAVIOURS = {
    "_http/test_caller_session.py": "a `requests.Session` of the caller's, through every module of `_http`",
    "_http/test_deadline.py": "the deadline of a call, wherever it runs out",
    "_http/test_environment.py": "proxies and certificates that the environment names",
    "_http/test_hostile.py": "servers that send too much, too little, or nonsense",
    "_http/test_logging.py": "what is logged of a call",
    "_http/test_secrecy.py": "no key in any error, log or pickle",
    "_http/test_sharing.py": "one client in many threads, and after a fork",
    "_http/test_timeouts.py": "the limits of connecting, sending and reading",
    "_http/test_tracebacks.py": "no key in a traceback with locals",
    "_parsing/test_wire_samples.py": "responses of real servers, read by every module of `_parsing`",
    "cli/test_app.py": "the command as a whole",
    "models/shared/test_model_api.py": "what all models have in common",
    "view/test_view.py": "what pages and terminals have in common",
}
"""Files about a promise that no single module makes, and which promise."""

FILES = sorted(
    path.relative_to(TESTS).as_posix()
    for path in TESTS.rglob("test_*.py")
    if not path.is_relative_to(TESTS / "project") and not path.is_relative_to(TESTS / "fixtures")
)


@pytest.mark.parametrize("path", FILES)
def test_layout_file_of_tests_names_a_module_or_is_listed(path: str) -> None:
    """`tests/x/test_y.py` and `tests/x/test_y_<topic>.py` are about `src/gpt/x/y.py`; other files are listed above."""
    name = Path(path).stem.removeprefix("test_")
    modules = {module.stem.strip("_") for module in (SOURCE / path).parent.glob("*.py")}
    assert path in BEHAVIOURS or any(name == module or name.startswith(f"{module}_") for module in modules if module)


def test_layout_listed_behaviours_exist() -> None:
    """No listed file has gone."""
    assert BEHAVIOURS.keys() <= set(FILES)
