"""Scoring by servers that repeat the prompt with its log-probabilities (`echo`); an error for those that do not.

A response is only accepted if it must belong to the prompt: it repeats the text, or has as many tokens as ids were
sent, and its very first token has no log-probability, as nothing comes before it.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from functools import lru_cache
from typing import Any

from .._parsing.logprobs import Token, tokens_of
from ..bulk import Outcome
from ..models import errors
from ..models.shared import CreateCompletionRequest
from .alignment import Alignment, Span, align, is_plain, spans_by_length
from .jobs import Job, Requests, Settings, completed, cut, refusal
from .plain import LEAST_IMPOSSIBLE, score_plainly
from .prompts import Prompt
from .result import Score

_SUPPORTED_SERVERS = (
    "vLLM, SGLang and OpenAI's base models score given texts by echo, and llama.cpp's own server (and gpt.local) by"
    " forced decoding; llama-cpp-python, Ollama and TGI do not"
)
_LIMIT_NAMES = ("max_tokens", "max_new_tokens")
_CONTEXTS = 4096


class Echo:
    """Scoring by `echo` on one server, in one run; what one response shows about the server is used for later texts."""

    def __init__(self, settings: Settings, *, kind: str) -> None:
        self._settings = settings
        self._tells_ids = kind == "vllm"
        self.max_tokens = 1 if kind == "sglang" else 0
        """SGLang generates at least one token; it is cut off again."""
        self._known_contexts = lru_cache(_CONTEXTS)(_no_ids)

    def job(self, prompt: Prompt) -> Job:
        """Score a text.

        Raises:
            errors.ResponseValidationError: the response does not repeat the prompt with its log-probabilities.
        """
        request = self._request(prompt)
        (outcome,) = yield [request]
        if not request.max_tokens and _rejects_zero(outcome.error):
            request = self._request(prompt, max_tokens=1)
            (outcome,) = yield [request]
            if outcome.error is None:
                self.max_tokens = 1
        response = completed(outcome)
        if len(response.choices) != 1:
            raise refusal(
                f"{prompt.name}: expected one choice, got {len(response.choices)}; try batch_size=1", response
            )
        if (score := score_plainly(prompt, response, request.max_tokens or 0)) is not None:
            return score
        echoed = Echoed(prompt, response, request.max_tokens or 0)
        context = yield from self._context_ids(prompt, echoed)
        return echoed.score(context)

    def _request(self, prompt: Prompt, max_tokens: int | None = None) -> CreateCompletionRequest:
        plain = isinstance(prompt.sent, str) and prompt.sent.isascii()
        extras = {"return_token_ids": True} if self._tells_ids and not plain else {}
        return self._settings.request(
            prompt.sent,
            extras,
            echo=True,
            logprobs=self._settings.logprobs,
            max_tokens=self.max_tokens if max_tokens is None else max_tokens,
        )

    def _context_ids(self, prompt: Prompt, echoed: Echoed) -> Generator[Requests, Sequence[Outcome], list[int] | None]:
        """Request the context's own token ids if the tokens do not show where the text begins."""
        if not prompt.context or isinstance(prompt.context, list) or not self._tells_ids or echoed.is_plain:
            return None
        known = self._known_contexts(prompt.context)
        if not known:
            (outcome,) = yield [self._settings.request(prompt.context, {"return_token_ids": True}, max_tokens=1)]
            ids = _prompt_ids(completed(outcome))
            if ids is None:
                return None
            known.append(ids)
        return known[0]


class Echoed:
    """A response that should be a prompt's echo, checked."""

    def __init__(self, prompt: Prompt, response: Any, max_tokens: int) -> None:
        """Check a response to a prompt.

        Args:
            prompt: what was sent.
            response: a completion with one choice.
            max_tokens: how many tokens were to be generated after the prompt.
        """
        choice = response.choices[0]
        self._prompt = prompt
        self._response = response
        self._max_tokens = max_tokens
        self._text = choice.text if isinstance(choice.text, str) else ""
        self._tokens = tokens_of(choice)
        self._check_echo()

    @property
    def is_plain(self) -> bool:
        """Whether the text of each token is complete."""
        return all(map(is_plain, self._tokens))

    def score(self, context: Sequence[int] | None) -> Score:
        """Read the score of the prompt's text; `context` are the context's token ids, where they were needed."""
        prompt, tokens = self._prompt, self._tokens
        if isinstance(prompt.text, str):
            part, spans = self._part(context)
            text, origin = prompt.text, len(prompt.context)
        else:
            part = slice(len(prompt.context), len(prompt.sent))
            aligned = align(tokens, self._text)
            spans = aligned.spans if aligned else spans_by_length(tokens)
            text, origin = "".join(token.text for token in tokens[part]), spans[part.start].start
        self._check_logprobs(part)
        return Score(
            text=text,
            tokens=tuple(token.text for token in tokens[part]),
            logprobs=tuple(token.logprob for token in tokens[part]),
            offsets=tuple(span.start - origin for span in spans[part]),
            top_logprobs=tuple(_top(token) for token in tokens[part]),
        )

    def _refuse(self, problem: str) -> errors.ResponseValidationError:
        return refusal(f"{self._prompt.name}: {problem}. {_SUPPORTED_SERVERS}", self._response)

    def _check_echo(self) -> None:
        sent, tokens = self._prompt.sent, self._tokens
        if isinstance(sent, str) and not self._text.startswith(sent):
            raise self._refuse(
                f"the server ignored echo: expected it to repeat the prompt, {cut(sent)}, got {cut(self._text)}"
            )
        if not tokens and isinstance(sent, str):
            raise self._refuse("the server sent no log-probabilities of the prompt")
        if isinstance(sent, list):
            if not len(sent) <= len(tokens) <= len(sent) + self._max_tokens:
                raise self._refuse(
                    f"the server ignored echo or logprobs: expected the prompt's {len(sent)} tokens, got {len(tokens)}"
                )
            if (ids := _prompt_ids(self._response)) is not None and ids != sent:
                raise self._refuse("the server sent the log-probabilities of other token ids")
        if tokens[0].logprob is not None:
            raise self._refuse(
                "the server ignored echo: the first token of a prompt has no log-probability,"
                f" but {cut(tokens[0].text)} has {tokens[0].logprob:.4g}"
            )

    def _part(self, context: Sequence[int] | None) -> tuple[slice, Sequence[Span]]:
        """Find the tokens after the context, without those generated."""
        aligned = align(self._tokens, self._text, len(self._prompt.context))
        exact = self._text == self._prompt.sent and not self._max_tokens
        begin = self._begin(aligned, context if exact else None, exact)
        if begin is None:
            spelled = "".join(token.text for token in self._tokens[:100])
            raise self._refuse(
                "cannot tell where the text begins and ends, for the server's tokens do not spell it in one way:"
                f" expected {cut(self._text)}, got {cut(spelled)}; token ids need no spelling"
            )
        spans = aligned.spans if aligned else self._spans_from(begin)
        end = len(self._tokens) if exact else self._end(spans)
        if begin >= end:
            raise self._refuse("the server sent no log-probabilities of the text")
        return slice(begin, end), spans

    def _begin(self, aligned: Alignment | None, context: Sequence[int] | None, exact: bool) -> int | None:
        """Return the first token of the text, if that can be proven."""
        ids = _prompt_ids(self._response)
        has_ids = context is not None and ids is not None and len(ids) == len(self._tokens)
        if has_ids and ids[: len(context)] == list(context):  # type: ignore[index,arg-type]
            return len(context)  # type: ignore[arg-type]
        if not self._prompt.context:
            if aligned is None:
                return 0 if exact else None
            # A beginning-of-text token is not part of the text.
            return int(len(self._tokens) > 1 and bool(self._tokens[0].text) and aligned.spans[0] == Span(0, 0))
        return aligned.begin if aligned else None

    def _spans_from(self, begin: int) -> list[Span]:
        """Return spans for tokens that do not spell the prompt; they are correct if the tokens spell the text."""
        context = len(self._prompt.context)
        aligned = align(self._tokens[begin:], str(self._prompt.text))
        spans = aligned.spans if aligned else spans_by_length(self._tokens[begin:])
        return [Span(0, context)] * begin + [Span(span.start + context, span.end + context) for span in spans]

    def _end(self, spans: Sequence[Span]) -> int:
        """Return the first token that was generated, behind a prompt that the tokens spell."""
        end = len(self._prompt.sent)
        inside = [number for number, span in enumerate(spans) if span.start < end]
        if inside and self._max_tokens and inside[-1] == len(spans) - 1 and spans[-1].end > end:
            inside.pop()  # a generated part of a character, which shares its span with the prompt's last one
        return inside[-1] + 1 if inside else 0

    def _check_logprobs(self, part: slice) -> None:
        """Refuse missing and invalid log-probabilities; only the very first token has none, as nothing precedes it."""
        for number, token in enumerate(self._tokens[part], part.start):
            if number and token.logprob is None:
                raise self._refuse(f"the server sent no log-probability for token {number}, {cut(token.text)}")
            if token.logprob is not None and token.logprob > LEAST_IMPOSSIBLE:
                raise self._refuse(
                    f"the server sent {token.logprob:.4g} for token {number}, {cut(token.text)}:"
                    " a log-probability is at most 0"
                )


def _no_ids(context: str) -> list[list[int]]:
    return []


def _rejects_zero(error: Exception | None) -> bool:
    """Return whether the server requires at least one generated token."""
    if not isinstance(error, errors.BadRequestError | errors.UnprocessableEntityError):
        return False
    return any(name in error.message for name in _LIMIT_NAMES)


def _prompt_ids(response: Any) -> list[int] | None:
    """Return the token ids of the prompt, which vLLM sends with `return_token_ids`."""
    ids = response.choices[0].additional_properties.get("prompt_token_ids") if response.choices else None
    return ids if isinstance(ids, list) and all(type(each) is int for each in ids) else None


def _top(token: Token) -> dict[str, float]:
    top: dict[str, float] = {}
    for each in token.alternatives:
        if each.logprob is not None:
            top.setdefault(each.text, each.logprob)  # the likeliest comes first
    return top
