"""Ask a server for the log-probabilities of given texts, and refuse answers that are not about them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..models import errors, operations, shared
from ..sdk import Gpt
from .echo import Reply, read_score
from .prompts import Ids, Prompt, make_prompts
from .result import Score

_LIMIT_NAMES = ("max_tokens", "max_new_tokens")


def score(
    s: Gpt,
    texts: Iterable[str | Ids],
    *,
    model: str,
    context: str | Ids | Sequence[str | Ids] | None = None,
    logprobs: int = 1,
    batch_size: int = 16,
    additional_properties: Mapping[str, Any] | None = None,
    **options: Any,
) -> list[Score]:
    """Give the log-probabilities of texts under a model, in their order.

    A token that begins in the context and ends in the text counts as the text's; its offset is negative.

    Args:
        s: the client.
        texts: the texts, or all of them as token ids (lists or NumPy arrays). None may be empty.
        model: the name of the model, as the server knows it.
        context: what comes before each text and is not scored; one for all, or a list with one for each.
            Token ids if the texts are.
        logprobs: how many of the likeliest tokens to report at each position, for `Score.top_logprobs`.
        batch_size: how many texts go into one request; 1 for servers that take a single prompt (llama-cpp-python).
        additional_properties: more fields of the request (`{"add_special_tokens": False}` for vLLM).
        options: `retries`, `timeout`, `deadline`, `http_headers`, `query` and `server_url` of `create_completion`.

    Raises:
        errors.ResponseValidationError: the server ignored `echo` or `logprobs`, or its tokens do not spell the text.
        errors.SDKError: a call failed.
        TypeError, ValueError: an argument cannot be used as it is.
    """
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size: expected an integer of at least 1, got {batch_size!r}")
    prompts = make_prompts(texts, context)
    asking = _Asking(s, model, logprobs, dict(additional_properties or {}), options)
    return [
        result
        for start in range(0, len(prompts), batch_size)
        for result in asking.score(prompts[start : start + batch_size])
    ]


@dataclass
class _Asking:
    """The requests of one run; what one learns of the server, the next ones use."""

    s: Gpt
    model: str
    logprobs: int
    extras: dict[str, Any]
    options: dict[str, Any]
    max_tokens: int = 0

    def score(self, prompts: Sequence[Prompt]) -> list[Score]:
        result = self._ask(prompts)
        choices = _in_order(result, len(prompts))
        return [
            read_score(prompt, Reply(choice, self.max_tokens, result.raw_response))
            for prompt, choice in zip(prompts, choices, strict=True)
        ]

    def _ask(self, prompts: Sequence[Prompt]) -> operations.CreateCompletionResponse:
        request = shared.CreateCompletionRequest(
            model=self.model,
            prompt=[prompt.sent for prompt in prompts],  # type: ignore[arg-type]  # all texts or all token ids
            echo=True,
            logprobs=self.logprobs,
            max_tokens=self.max_tokens,
            additional_properties=self.extras,
        )
        try:
            return self.s.completions.create_completion(request, **self.options)
        except (errors.BadRequestError, errors.UnprocessableEntityError) as error:
            # SGLang generates at least one token; it is cut off again.
            if self.max_tokens or not any(name in error.message for name in _LIMIT_NAMES):
                raise
        self.max_tokens = 1
        return self._ask(prompts)


def _in_order(result: operations.CreateCompletionResponse, wanted: int) -> list[shared.CreateCompletionResponseChoices]:
    """Sort the choices by index, for TGI sends them as they are finished; one without an index keeps its place."""
    assert result.create_completion_response is not None
    choices = result.create_completion_response.choices
    by_index = {
        choice.index if isinstance(choice.index, int) else place: choice for place, choice in enumerate(choices)
    }
    if len(choices) != wanted or sorted(by_index) != list(range(wanted)):
        raise errors.ResponseValidationError(
            f"expected one choice for each of {wanted} prompts, got choices {[choice.index for choice in choices]}"
            "; try batch_size=1",
            result.status_code,
            result.raw_response.text,
            result.raw_response,
        )
    return [by_index[index] for index in range(wanted)]
