"""The request of `POST /completions`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar, Protocol

from ..._core.model import Model
from .completionstreamoptions import CompletionStreamOptions


class CreateCompletionRequestModel(str, Enum):
    """The models that the official schema names. Any other string is accepted as well."""

    GPT_3_5_TURBO_INSTRUCT = "gpt-3.5-turbo-instruct"
    DAVINCI_002 = "davinci-002"
    BABBAGE_002 = "babbage-002"


class SupportsToList(Protocol):
    """An array of NumPy, PyTorch, pandas or the standard library."""

    def tolist(self) -> Any:
        """Return the items as a list of Python's own numbers, or as lists of them."""


@dataclass(kw_only=True, repr=False)
class CreateCompletionRequest(Model):
    """A prompt and how to complete it.

    Fields left unset are not sent, so the server's own defaults apply; zeros, `False` and `""` are sent. Types are
    checked before anything is sent (`TypeError`); ranges are left to the server, since servers differ.
    Source: the OpenAI API specification, `CreateCompletionRequest`.
    """

    json_strict: ClassVar[bool] = True

    model: str | CreateCompletionRequestModel
    """The name of the model, as the server knows it."""

    prompt: (
        str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]] | Sequence[SupportsToList] | SupportsToList | None
    ) = None
    """A text, several texts, the token ids of one text, or of several. Integer arrays (NumPy's, PyTorch's) are token
    ids too."""

    best_of: int | None = None
    """How many completions the server generates, of which it returns the best `n` (by log-probability per token)."""

    echo: bool | None = None
    """Whether the text begins with the prompt; with `logprobs`, this scores the prompt."""

    frequency_penalty: float | None = None
    """From -2 to 2: positive values penalise tokens by how often they already occurred."""

    logit_bias: Mapping[str, float] | Mapping[int, float] | None = None
    """Maps token ids to a bias that is added to their logits, from -100 to 100. Integer keys are sent as strings."""

    logprobs: int | None = None
    """How many of the most likely tokens to report with their log-probabilities at each position."""

    max_tokens: int | None = None
    """Maximum number of tokens to generate for each completion. Default: 16 at OpenAI, no limit at llama.cpp."""

    n: int | None = None
    """How many completions to generate for each prompt."""

    presence_penalty: float | None = None
    """From -2 to 2: positive values penalise tokens that already occurred, however often."""

    seed: int | None = None
    """Seed for sampling: the same seed and request give the same completion, as far as the server can."""

    stop: str | Sequence[str] | None = None
    """One or several texts at which generation stops. The completion does not contain them. TGI requires a list."""

    stream: bool | None = None
    """Whether to stream the completion as it is generated. See also `stream_completion`."""

    stream_options: CompletionStreamOptions | None = None
    """Options of the stream. Only with `stream=True`."""

    suffix: str | None = None
    """The text that comes after the completion, for models trained to fill in the middle."""

    temperature: float | None = None
    """Sampling temperature, from 0 to 2: 0 always takes the most likely token, higher values are more random."""

    top_p: float | None = None
    """Nucleus sampling, from 0 to 1: sample from the smallest set of tokens with this total probability."""

    user: str | None = None
    """An identifier of your end user, for the server's abuse monitoring."""

    additional_properties: dict[str, Any] = field(default_factory=dict)
    """Further fields that your server takes (`top_k`, `min_p`…), by their wire names. Merged into the body last: they
    win over the fields above, and an explicit `None` is sent as null."""
