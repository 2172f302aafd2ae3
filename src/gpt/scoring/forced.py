"""Scoring on llama.cpp's own server, which ignores `echo`: make it generate the text, and nothing else.

A grammar of token ids (`root ::= <[457]> <[1789]>`), or a bias on one token, leaves only the text's next token to be
sampled. The `logprob` that llama.cpp reports is read from the model's raw output, before grammar, bias and samplers, so
it is the probability of that token under the model. (`tools/server/server-context.cpp`, `populate_token_probs`; it
holds while `post_sampling_probs` is off. The tests compare with the full distribution at every position.)

Some tokens cannot be forced: those that are only a part of a character, since the server reports no log-probability
for text that ends inside one, and special ones, since they end the generation or are not text for the grammar. They
are looked up among the alternatives at their position, while another token is forced there.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Generator, Sequence
from typing import Any

from ..bulk import Outcome
from ..models import errors
from ..models.shared import CreateCompletionRequest
from .jobs import Job, Requests, Settings, completed, cut, refusal
from .plain import LEAST_IMPOSSIBLE
from .prompts import Prompt
from .result import Score
from .server import Piece, ServerInfo

_ALTERNATIVES = 1000
"""How many alternatives to request first when a token must be looked up; after that, all of them."""

_CERTAIN = 100
"""The bias that leaves a single token: the largest that the API allows."""

_MAYBE_SPECIAL = re.compile(r"<.+>|\[.+\]", re.DOTALL)

_Row = tuple[float, dict[str, float]]
"""A token's log-probability, and the likeliest tokens at its position."""


def forced_job(prompt: Prompt, server: ServerInfo, settings: Settings) -> Job:
    """Score a text by forcing its tokens."""
    return (
        _score_ids(prompt, server, settings) if isinstance(prompt.text, list) else _score_text(prompt, server, settings)
    )


def _score_ids(prompt: Prompt, server: ServerInfo, settings: Settings) -> Job:
    assert isinstance(prompt.sent, list)
    begin = len(prompt.context)
    pieces = server.pieces(prompt.sent)
    rows = yield from _rows(prompt, pieces, begin, server, settings)
    text, offsets = _in_characters(pieces[begin:])
    return _make(text, pieces[begin:], offsets, rows)


def _score_text(prompt: Prompt, server: ServerInfo, settings: Settings) -> Job:
    assert isinstance(prompt.text, str)
    special, after = server.affixes()
    whole = server.tokenize(str(prompt.sent))
    pieces = whole[: len(whole) - after]
    begin, offsets = _boundary(prompt, pieces[special:])
    rows = yield from _rows(prompt, pieces, special + begin, server, settings)
    return _make(prompt.text, pieces[special + begin :], offsets, rows)


def _boundary(prompt: Prompt, pieces: Sequence[Piece]) -> tuple[int, list[int]]:
    """Find the first token that is not entirely in the context, and where it and the following begin in the text.

    Raises:
        errors.ResponseValidationError: the tokens do not spell context and text.
    """
    sent, context = str(prompt.sent), str(prompt.context)
    spelled, offsets = _in_characters(pieces)
    added = len(spelled) - len(sent)  # SentencePiece begins a text with a space of its own
    if spelled[added:] != sent or spelled[:added] not in ("", " "):
        raise refusal(
            f"{prompt.name}: cannot tell where the text begins and ends, for the server's tokens do not spell it:"
            f" expected {cut(sent)}, got {cut(spelled)}; token ids need no spelling"
        )
    boundary, end, begin = len(context.encode()) + added, 0, 0
    for piece in pieces:
        end += len(piece.raw or b"")
        if end > boundary:
            break
        begin += 1
    return begin, [max(0, offset - added) - len(context) for offset in offsets[begin:]]


def _in_characters(pieces: Sequence[Piece]) -> tuple[str, list[int]]:
    """Return the text of tokens, and for each the index of the character in which it begins."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    parts: list[str] = []
    offsets: list[int] = []
    count = 0
    for piece in pieces:
        offsets.append(count)
        part = decoder.decode(piece.text.encode() if piece.raw is None else piece.raw)
        parts.append(part)
        count += len(part)
    return "".join((*parts, decoder.decode(b"", final=True))), offsets


def _make(text: str, pieces: Sequence[Piece], offsets: Sequence[int], rows: Sequence[_Row | None]) -> Score:
    return Score(
        text=text,
        tokens=tuple(piece.text for piece in pieces),
        logprobs=tuple(None if row is None else row[0] for row in rows),
        offsets=tuple(offsets),
        top_logprobs=tuple({} if row is None else row[1] for row in rows),
    )


def _rows(
    prompt: Prompt, pieces: Sequence[Piece], begin: int, server: ServerInfo, settings: Settings
) -> Generator[Requests, Sequence[Outcome], list[_Row | None]]:
    """Find the log-probabilities of the tokens from `begin` on; the very first token has none."""
    work = _Forcing(prompt, pieces, server, settings)
    first = max(begin, 1)
    runs = work.runs(first)
    found: dict[int, _Row] = {}
    forced = [(run, work.force(run)) for run in runs if work.is_forcible(run.start)]
    outcomes = (yield [request for _, request in forced]) if forced else []
    for (run, _), outcome in zip(forced, outcomes, strict=True):
        found.update(work.read_forced(run, outcome))
    missing = [position for position in range(first, len(pieces)) if position not in found]
    for count in (_ALTERNATIVES, server.vocabulary):
        if missing:
            outcomes = yield [work.look_up(position, count) for position in missing]
            for position, outcome in zip(missing, outcomes, strict=True):
                found.update(work.read_looked_up(position, outcome))
            missing = [position for position in missing if position not in found]
    if missing:
        raise refusal(
            f"{prompt.name}: the server gave no log-probability of token {missing[0]}, {pieces[missing[0]].text!r}"
        )
    return [found.get(position) for position in range(begin, len(pieces))]


class _Forcing:
    """The requests about one text, and what is read from their responses."""

    def __init__(self, prompt: Prompt, pieces: Sequence[Piece], server: ServerInfo, settings: Settings) -> None:
        self._name = prompt.name
        self._pieces = pieces
        self._ids = [piece.id for piece in pieces]
        self._server = server
        self._settings = settings

    def is_forcible(self, position: int) -> bool:
        """Return whether the token at a position has only whole characters and is certainly not special."""
        raw = self._pieces[position].raw
        if not raw or b"\0" in raw:  # llama.cpp's grammars end a token's text at a NUL
            return False
        try:
            return not _MAYBE_SPECIAL.fullmatch(raw.decode())
        except UnicodeDecodeError:
            return False

    def runs(self, first: int) -> list[range]:
        """Divide the positions into the longest runs that one request can force; other positions stand alone."""
        runs: list[range] = []
        for position in range(first, len(self._ids)):
            joins = runs and self._server.has_token_grammar and self.is_forcible(position)
            if joins and self.is_forcible(runs[-1].start):
                runs[-1] = range(runs[-1].start, position + 1)
            else:
                runs.append(range(position, position + 1))
        return runs

    def force(self, run: range) -> CreateCompletionRequest:
        """Make the request that generates a run of tokens."""
        ids = [self._ids[position] for position in run]
        if self._server.has_token_grammar:
            constraint: dict[str, Any] = {"grammar": "root ::= " + " ".join(f"<[{each}]>" for each in ids)}
        else:
            constraint = {"logit_bias": {str(ids[0]): _CERTAIN}}
        return self._request(run.start, len(run), max(1, self._settings.logprobs), constraint)

    def look_up(self, position: int, count: int) -> CreateCompletionRequest:
        """Make the request that lists the likeliest tokens at a position."""
        return self._request(position, 1, count, {"logit_bias": {str(self._server.anchor()): _CERTAIN}})

    def _request(self, start: int, tokens: int, count: int, extras: dict[str, Any]) -> CreateCompletionRequest:
        bias = extras.pop("logit_bias", None)
        return self._settings.request(
            self._ids[:start], extras, max_tokens=tokens, logprobs=count, temperature=0, logit_bias=bias
        )

    def read_forced(self, run: range, outcome: Outcome) -> dict[int, _Row]:
        """Read a run's rows; none if the returned ids show that the tokens could not be forced.

        Raises:
            errors.SDKError: the call failed for another reason than the constraint.
        """
        if isinstance(outcome.error, errors.APIStatusError) and "grammar" in outcome.error.message:
            if outcome.error.status_code == 400:
                self._server.has_token_grammar = False
            return {}
        entries = _entries(outcome)
        if [entry.get("id") for entry in entries] != [self._ids[position] for position in run]:
            return {}
        rows = {}
        for position, entry in zip(run, entries, strict=True):
            logprob = _logprob(entry)
            if logprob is not None:
                rows[position] = self._row(position, logprob, _alternatives(entry))
        return rows

    def read_looked_up(self, position: int, outcome: Outcome) -> dict[int, _Row]:
        """Read one row from the alternatives of a position; none where the token is not among them.

        Raises:
            errors.SDKError: the call failed.
        """
        entries = _entries(outcome)
        if [entry.get("id") for entry in entries] != [self._server.anchor()]:
            return {}
        alternatives = _alternatives(entries[0])
        for entry in (*alternatives, entries[0]):
            if entry.get("id") == self._ids[position] and (logprob := _logprob(entry)) is not None:
                return {position: self._row(position, logprob, alternatives)}
        return {}

    def _row(self, position: int, logprob: float, alternatives: Sequence[dict[str, Any]]) -> _Row:
        """Keep the alternatives that were requested, and the token itself as servers with echo do."""
        count = self._settings.logprobs
        top: dict[str, float] = {}
        for entry in alternatives[:count]:
            value = _logprob(entry)
            if value is not None:
                top.setdefault(_text(entry), value)  # the likeliest one comes first
        if count:
            top.setdefault(self._pieces[position].text, logprob)
        return logprob, top


def _entries(outcome: Outcome) -> list[dict[str, Any]]:
    """Return the entries of the generated tokens; none when the server sent no log-probabilities."""
    choices = completed(outcome).choices
    logprobs = choices[0].logprobs if len(choices) == 1 else None
    content = getattr(logprobs, "content", None)
    return [entry for entry in content if isinstance(entry, dict)] if isinstance(content, list) else []


def _alternatives(entry: dict[str, Any]) -> list[dict[str, Any]]:
    listed = entry.get("top_logprobs")
    return [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []


def _logprob(entry: dict[str, Any]) -> float | None:
    """Return a log-probability, which is at most 0; slightly above may be a rounding error."""
    value = entry.get("logprob")
    return float(value) if isinstance(value, int | float) and value < LEAST_IMPOSSIBLE else None


def _text(entry: dict[str, Any]) -> str:
    try:
        return bytes(entry["bytes"]).decode("utf-8", "replace") or str(entry.get("token"))
    except (KeyError, TypeError, ValueError):
        return str(entry.get("token"))
