"""Token counts of a completion."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..._core.model import Model


@dataclass(kw_only=True, repr=False)
class CompletionUsageCompletionTokensDetails(Model):
    """Where the tokens of the completion went, as far as the server says."""

    accepted_prediction_tokens: int | None = None
    """Predicted tokens that appeared in the completion."""

    audio_tokens: int | None = None
    """Tokens of audio."""

    reasoning_tokens: int | None = None
    """Tokens of reasoning."""

    rejected_prediction_tokens: int | None = None
    """Predicted tokens that did not appear but are counted."""

    text_tokens: int | None = None
    """Tokens of text."""

    additional_properties: dict[str, Any] = field(default_factory=dict)
    """What the server sent beyond these fields."""


@dataclass(kw_only=True, repr=False)
class CompletionUsagePromptTokensDetails(Model):
    """Where the tokens of the prompt came from, as far as the server says."""

    audio_tokens: int | None = None
    """Tokens of audio."""

    cached_tokens: int | None = None
    """Tokens that the server had in its prefix cache."""

    cache_write_tokens: int | None = None
    """Tokens that the server wrote into its cache."""

    image_tokens: int | None = None
    """Tokens of images."""

    text_tokens: int | None = None
    """Tokens of text."""

    additional_properties: dict[str, Any] = field(default_factory=dict)
    """What the server sent beyond these fields."""


@dataclass(kw_only=True, repr=False)
class CompletionUsage(Model):
    """Token counts of a request. Servers leave out what they do not count."""

    prompt_tokens: int | None = None
    """Tokens of the prompt."""

    completion_tokens: int | None = None
    """Tokens of all completions."""

    total_tokens: int | None = None
    """Their sum."""

    completion_tokens_details: CompletionUsageCompletionTokensDetails | None = None
    """Where the completion's tokens went."""

    prompt_tokens_details: CompletionUsagePromptTokensDetails | None = None
    """Where the prompt's tokens came from."""

    additional_properties: dict[str, Any] = field(default_factory=dict)
    """What the server sent beyond these fields (`prompt_cache_hit_tokens` of DeepSeek…)."""
