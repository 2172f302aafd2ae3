"""Options of a streamed completion."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..._core.model import Model


@dataclass(kw_only=True, eq=False, repr=False)
class CompletionStreamOptions(Model):
    """What a stream carries besides its text. Only sent with `stream=True`."""

    json_strict: ClassVar[bool] = True

    include_usage: bool | None = None
    """Whether one more chunk, with empty `choices`, reports the usage of the whole request."""

    include_obfuscation: bool | None = None
    """Whether random characters even out the size of events (OpenAI only)."""

    additional_properties: dict[str, Any] = field(default_factory=dict)
    """Options of one server only (`continuous_usage_stats` of vLLM…), by their wire names."""
