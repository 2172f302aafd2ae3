"""From a choice that repeats its prompt to the score of the part that was asked about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .._parsing.logprobs import Token, tokens_of
from ..models import errors, shared
from .alignment import Span, align, count
from .prompts import Prompt
from .result import Score

_WHO = (
    "vLLM, SGLang, llama-cpp-python and OpenAI's base models score given texts;"
    " llama.cpp's own server, Ollama and TGI do not"
)


@dataclass(frozen=True)
class Reply:
    """A choice and what it answers."""

    choice: shared.CreateCompletionResponseChoices

    max_tokens: int
    """How many tokens were asked for beyond the prompt."""

    response: Any
    """The `requests.Response`, for errors."""

    def refuse(self, problem: str) -> errors.ResponseValidationError:
        """Make the error for an answer that is not about the prompt."""
        response = self.response
        return errors.ResponseValidationError(problem, response.status_code, response.text, response)


def read_score(prompt: Prompt, reply: Reply) -> Score:
    """Read the score of a prompt's text.

    Raises:
        errors.ResponseValidationError: the answer does not repeat the prompt with its log-probabilities.
    """
    text = reply.choice.text or ""
    tokens = tokens_of(reply.choice)
    _check_echo(prompt, reply, tokens, text)
    if isinstance(prompt.text, str):
        part, spans = _part_of_text(prompt, reply, tokens, text)
        scored, origin = prompt.text, len(prompt.context)
    else:
        part = slice(len(prompt.context), len(prompt.sent))
        spans = align(tokens, text) or count(tokens)
        scored, origin = "".join(token.text for token in tokens[part]), spans[part.start].start
    _check_numbers(prompt, reply, tokens, part)
    return Score(
        text=scored,
        tokens=tuple(token.text for token in tokens[part]),
        logprobs=tuple(token.logprob for token in tokens[part]),
        offsets=tuple(span.start - origin for span in spans[part]),
        top_logprobs=tuple(_top(token) for token in tokens[part]),
    )


def _check_echo(prompt: Prompt, reply: Reply, tokens: Sequence[Token], text: str) -> None:
    ignored = f"{prompt.name}: the server ignored echo: expected its answer to begin with the prompt"
    if isinstance(prompt.sent, str):
        if not text.startswith(prompt.sent):
            raise reply.refuse(f"{ignored}, {_cut(prompt.sent)}, got {_cut(text)}. {_WHO}")
    elif tokens and not _repeats_ids(tokens, len(prompt.sent), reply.max_tokens):
        raise reply.refuse(f"{ignored}'s {len(prompt.sent)} tokens, got {len(tokens)} tokens. {_WHO}")
    if not tokens:
        raise reply.refuse(f"{prompt.name}: the server sent no log-probabilities of the prompt. {_WHO}")


def _repeats_ids(tokens: Sequence[Token], sent: int, max_tokens: int) -> bool:
    """Tell by their number whether tokens are those of the prompt; of a single one, by its having no probability."""
    return sent <= len(tokens) <= sent + max_tokens and (len(tokens) > 1 or tokens[0].logprob is None)


def _part_of_text(prompt: Prompt, reply: Reply, tokens: Sequence[Token], text: str) -> tuple[slice, Sequence[Span]]:
    """Find the tokens behind the context, without those generated."""
    spans = align(tokens, text)
    if spans is None and not prompt.context and text == prompt.sent and not reply.max_tokens:
        return slice(0, len(tokens)), count(tokens)
    if spans is None:
        raise reply.refuse(
            f"{prompt.name}: cannot tell where the text begins and ends, for the server's tokens do not spell it:"
            f" expected {_cut(text)}, got {_cut(''.join(token.text for token in tokens))}; token ids need no spelling"
        )
    begin, end = len(prompt.context), len(prompt.sent)
    inside = [n for n, span in enumerate(spans) if (span.end > begin or span.start == begin) and span.start < end]
    if inside and reply.max_tokens and inside[-1] == len(spans) - 1 and spans[-1].end > end:
        inside.pop()  # a generated part of a character, which shares its span with the prompt's last one
    if not inside:
        raise reply.refuse(f"{prompt.name}: the server sent no log-probabilities of the text. {_WHO}")
    return slice(inside[0], inside[-1] + 1), spans


def _check_numbers(prompt: Prompt, reply: Reply, tokens: Sequence[Token], part: slice) -> None:
    """Refuse a hole: only the very first token has nothing to be predicted from."""
    for n, token in enumerate(tokens[part], part.start):
        if n and token.logprob is None:
            raise reply.refuse(
                f"{prompt.name}: the server sent no log-probability for token {n}, {token.text!r}. {_WHO}"
            )


def _top(token: Token) -> dict[str, float]:
    return {each.text: each.logprob for each in token.alternatives if each.logprob is not None}


def _cut(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:60]}…")
