"""The request of `POST /completions`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..._core.model import Model
from .completionstreamoptions import CompletionStreamOptions
from .createcompletionrequestmodel import CreateCompletionRequestModel


@dataclass(kw_only=True, eq=False, repr=False)
class CreateCompletionRequest(Model):
    """A prompt and how to complete it.

    What is left unset is not sent: the server's own defaults hold. Zeros, `False` and `""` are sent. Ranges are the
    server's to enforce, since servers differ. Source: the OpenAI API specification, `CreateCompletionRequest`.
    """

    json_strict: ClassVar[bool] = True

    model: str | CreateCompletionRequestModel
    """The name of the model, as the server knows it."""

    prompt: str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]] | None = None
    """A text, several texts, the token ids of one text, or of several; NumPy integer arrays are token ids too."""

    best_of: int | None = None
    """How many completions the server makes to return the best `n` of (by log-probability a token)."""

    echo: bool | None = None
    """Whether the answer repeats the prompt before the completion; with `logprobs`, this scores the prompt."""

    frequency_penalty: float | None = None
    """From -2 to 2: above 0, tokens become less likely the more often they have occurred."""

    logit_bias: Mapping[str, float] | None = None
    """Token id to a bias added to its logit, from -100 to 100. Integer keys are sent as strings."""

    logprobs: int | None = None
    """How many of the most likely tokens to report with their log-probabilities at each position."""

    max_tokens: int | None = None
    """The most tokens to generate for each completion. The default differs: 16 at OpenAI, unlimited at llama.cpp."""

    n: int | None = None
    """How many completions to make for each prompt."""

    presence_penalty: float | None = None
    """From -2 to 2: above 0, tokens that have occurred at all become less likely."""

    seed: int | None = None
    """The seed of the sampling: the same seed and request give the same answer, as far as the server can."""

    stop: str | Sequence[str] | None = None
    """Where to stop: one text or several. The answer does not contain it. TGI wants a list even for one."""

    stream: bool | None = None
    """Whether the answer comes as a stream of events."""

    stream_options: CompletionStreamOptions | None = None
    """What the stream carries besides its text. Only with `stream=True`."""

    suffix: str | None = None
    """The text that comes after the completion, for models that fill in."""

    temperature: float | None = None
    """From 0 to 2: 0 always takes the likeliest token, higher values choose more freely."""

    top_p: float | None = None
    """From 0 to 1: sample from the fewest tokens whose probabilities add up to this much."""

    user: str | None = None
    """An identifier of your end user, for the server's abuse monitoring."""

    additional_properties: dict[str, Any] = field(default_factory=dict)
    """Fields of one server only (`top_k`, `min_p`…), by their wire names. Merged into the body last: they win over
    the fields above, and an explicit `None` is sent as null."""
