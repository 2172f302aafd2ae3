"""Join the chunks of a stream into one completion."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..models.shared.createcompletionresponse import (
    CreateCompletionResponse,
    CreateCompletionResponseChoices,
    CreateCompletionResponseChoicesLogprobs,
)

_JOINED_LISTS = ("token_ids",)


def accumulate(chunks: Iterable[CreateCompletionResponse]) -> CreateCompletionResponse:
    """Join chunks: texts and log-probabilities by choice, choices ordered by index, the last usage kept.

    For every other field, the last value that is not null is kept. A choice without an index gets its position.
    """
    total = CreateCompletionResponse(choices=[])
    choices: dict[int, _Choice] = {}
    for chunk in chunks:
        for name in ("id", "created", "model", "object", "system_fingerprint", "usage"):
            if (value := getattr(chunk, name)) not in (None, ""):
                setattr(total, name, value)
        _keep_last(total.additional_properties, chunk.additional_properties)
        for position, delta in enumerate(chunk.choices):
            index = delta.index if type(delta.index) is int else position
            choices.setdefault(index, _Choice(index)).add(delta)
    total.choices = [choices[index].joined() for index in sorted(choices)]
    return total


class _Choice:
    """One choice under construction; texts are joined once, at the end."""

    def __init__(self, index: int) -> None:
        self._choice = CreateCompletionResponseChoices(index=index)
        self._texts: list[str] = []

    def add(self, delta: CreateCompletionResponseChoices) -> None:
        if isinstance(delta.text, str):
            self._texts.append(delta.text)
        if delta.finish_reason:
            self._choice.finish_reason = delta.finish_reason
        if isinstance(delta.logprobs, CreateCompletionResponseChoicesLogprobs):
            if self._choice.logprobs is None:
                self._choice.logprobs = CreateCompletionResponseChoicesLogprobs()
            _join_logprobs(self._choice.logprobs, delta.logprobs)
        _keep_last(self._choice.additional_properties, delta.additional_properties)

    def joined(self) -> CreateCompletionResponseChoices:
        self._choice.text = "".join(self._texts)
        return self._choice


def _join_logprobs(
    total: CreateCompletionResponseChoicesLogprobs, delta: CreateCompletionResponseChoicesLogprobs
) -> None:
    for name in ("text_offset", "token_logprobs", "tokens", "top_logprobs", "content"):
        if (value := getattr(delta, name)) is not None:
            setattr(total, name, _joined(getattr(total, name), value))
    _keep_last(total.additional_properties, delta.additional_properties)


def _keep_last(total: dict[str, Any], delta: dict[str, Any]) -> None:
    for name, value in delta.items():
        if name in _JOINED_LISTS and value is not None:
            total[name] = _joined(total.get(name), value)
        elif value is not None or name not in total:
            total[name] = value


def _joined(total: Any, delta: Any) -> Any:
    """Add a delta to the total, which is ours and grows in place: streams have many chunks."""
    if isinstance(delta, list):
        if not isinstance(total, list):
            return list(delta)
        total.extend(delta)
        return total
    if isinstance(delta, dict):  # Together's `top_logprobs` is one map
        return {**total, **delta} if isinstance(total, dict) else delta
    return delta
