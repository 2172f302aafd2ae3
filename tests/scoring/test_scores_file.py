"""The file of scores: what a line is, what is read again, and what it refuses."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt.scoring import Score
from gpt.scoring.scores_file import ScoresFile, to_json_line

PLAIN = Score(text="ab", tokens=("a", "b"), logprobs=(None, -1.5), offsets=(0, 1), top_logprobs=({}, {"b": -1.5}))
ODD = Score(text="ab", tokens=("a", "b"), logprobs=(None, -1.5), offsets=(0, 1), top_logprobs=({}, {"\ud800": -0.5}))
NUMBERS = st.floats(max_value=0, allow_nan=False)


def test_scores_file_half_a_surrogate_pair_is_written_and_read_again(tmp_path: Path) -> None:
    """An alternative that is half of a pair, as an escape may say, ends neither this run nor the next one."""
    path = tmp_path / "s.jsonl"
    with ScoresFile(path) as scores:
        scores.append(1, "", ODD)
        scores.append(2, "c", PLAIN)

    assert json.loads(path.read_bytes().splitlines()[0])["top_logprobs"] == [{}, {"\ud800": -0.5}]
    with ScoresFile(path) as scores:
        assert (scores.count, scores.has(1, "ab", ""), scores.has(2, "ab", "c")) == (2, True, True)
        assert not scores.has(3, "ab", "")


@given(st.lists(NUMBERS, min_size=1, max_size=3), st.text(max_size=3), st.text(max_size=3))
def test_to_json_line_is_one_line_of_strict_json(numbers: list[float], context: str, token: str) -> None:
    """The line of any score is valid JSON, with null for NaN and infinities, and nothing is lost."""
    top = tuple({token: number} for number in numbers)
    score = Score("x", ("x",) * len(numbers), tuple(numbers), tuple(range(len(numbers))), top)

    line = to_json_line(1, context, score)

    value = json.loads(line, parse_constant=pytest.fail)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert value["logprobs"] == [number if math.isfinite(number) else None for number in numbers]
    assert (value["context"], *value["top_logprobs"][0]) == (context, token)


@pytest.mark.parametrize("rest", [to_json_line(2, "", ODD)[:40], b"\0" * 40], ids=["cut", "NULs"])
def test_scores_file_line_cut_short_is_taken_off(tmp_path: Path, rest: bytes) -> None:
    """What a crash or a power cut left of a line is removed, and that text is scored again."""
    path = tmp_path / "s.jsonl"
    whole = to_json_line(1, "", PLAIN)
    path.write_bytes(whole + rest)

    with ScoresFile(path) as scores:
        assert (scores.count, scores.has(2, "ab", "")) == (1, False)

    assert path.read_bytes() == whole


def test_scores_file_of_another_text_is_refused(tmp_path: Path) -> None:
    """A line whose text has changed since does not count as finished, and is not written twice."""
    with ScoresFile(tmp_path / "s.jsonl") as scores:
        scores.append(1, "", PLAIN)
        for text, context in (("abc", ""), ("ab", "c")):
            with pytest.raises(ValueError, match="the input was changed; name another output"):
                scores.has(1, text, context)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such locks")
def test_scores_file_that_is_open_is_refused(tmp_path: Path) -> None:
    """Two runs never write to one file."""
    with (
        ScoresFile(tmp_path / "s.jsonl"),
        pytest.raises(BlockingIOError, match="another run is writing to this file"),
    ):
        ScoresFile(tmp_path / "s.jsonl")
