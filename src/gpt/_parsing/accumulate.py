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

    Of every other field the last value that is not null counts. A choice without an index has that of its position.
    """
    whole = CreateCompletionResponse(choices=[])
    choices: dict[int, _Choice] = {}
    for chunk in chunks:
        for name in ("id", "created", "model", "object", "system_fingerprint", "usage"):
            if (value := getattr(chunk, name)) not in (None, ""):
                setattr(whole, name, value)
        _keep_last(whole.additional_properties, chunk.additional_properties)
        for position, piece in enumerate(chunk.choices):
            index = piece.index if type(piece.index) is int else position
            choices.setdefault(index, _Choice(index)).add(piece)
    whole.choices = [choices[index].whole() for index in sorted(choices)]
    return whole


class _Choice:
    """One choice under construction; texts are joined once, at the end."""

    def __init__(self, index: int) -> None:
        self._choice = CreateCompletionResponseChoices(index=index)
        self._texts: list[str] = []

    def add(self, piece: CreateCompletionResponseChoices) -> None:
        if isinstance(piece.text, str):
            self._texts.append(piece.text)
        if piece.finish_reason:
            self._choice.finish_reason = piece.finish_reason
        if isinstance(piece.logprobs, CreateCompletionResponseChoicesLogprobs):
            if self._choice.logprobs is None:
                self._choice.logprobs = CreateCompletionResponseChoicesLogprobs()
            _join_logprobs(self._choice.logprobs, piece.logprobs)
        _keep_last(self._choice.additional_properties, piece.additional_properties)

    def whole(self) -> CreateCompletionResponseChoices:
        self._choice.text = "".join(self._texts)
        return self._choice


def _join_logprobs(
    whole: CreateCompletionResponseChoicesLogprobs, piece: CreateCompletionResponseChoicesLogprobs
) -> None:
    for name in ("text_offset", "token_logprobs", "tokens", "top_logprobs", "content"):
        if (value := getattr(piece, name)) is not None:
            setattr(whole, name, _joined(getattr(whole, name), value))
    _keep_last(whole.additional_properties, piece.additional_properties)


def _keep_last(whole: dict[str, Any], piece: dict[str, Any]) -> None:
    for name, value in piece.items():
        if name in _JOINED_LISTS and value is not None:
            whole[name] = _joined(whole.get(name), value)
        elif value is not None or name not in whole:
            whole[name] = value


def _joined(whole: Any, piece: Any) -> Any:
    """Add a piece to what there is, which is ours and grows in place: streams have many pieces."""
    if isinstance(piece, list):
        if not isinstance(whole, list):
            return list(piece)
        whole.extend(piece)
        return whole
    if isinstance(piece, dict):  # Together's `top_logprobs` is one map
        return {**whole, **piece} if isinstance(whole, dict) else piece
    return piece
