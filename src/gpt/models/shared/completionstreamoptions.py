"""Options of a streamed completion."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..._core.model import Model


@dataclass(kw_only=True, repr=False)
class CompletionStreamOptions(Model):
    """Options of a streamed completion. Only with `stream=True`."""

    json_strict: ClassVar[bool] = True

    include_usage: bool | None = None
    """Whether a last chunk, with empty `choices`, reports the usage of the whole request."""

    include_obfuscation: bool | None = None
    """Whether random characters are added to events so that their sizes do not reveal the tokens (OpenAI only)."""

    additional_properties: dict[str, Any] = field(default_factory=dict)
    """Further options that your server takes (`continuous_usage_stats` of vLLM…), by their wire names."""
