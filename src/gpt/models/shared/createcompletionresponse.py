"""The response of `POST /completions`, and each chunk of a streamed one."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from ..._core.model import Model
from .completionusage import CompletionUsage


class CreateCompletionResponseChoicesFinishReason(str, Enum):
    """The reasons that the official schema knows. Servers send others (`abort`, `eos_token`, `load`, `""`…)."""

    STOP = "stop"
    """A natural end, or one of the `stop` texts."""

    LENGTH = "length"
    """`max_tokens` or the context was used up."""

    CONTENT_FILTER = "content_filter"
    """The server's content filter removed text."""


@dataclass(kw_only=True, repr=False)
class CreateCompletionResponseChoicesLogprobs(Model):
    """Log-probabilities (natural logarithm) by token.

    Most servers send the four lists below, of which any may be missing; llama.cpp and Fireworks send `content`, the
    form of the chat endpoint, instead.
    """

    text_offset: list[int] | None = None
    """Where each token begins in the text, in characters. SGLang sends -1 throughout."""

    token_logprobs: list[float | None] | None = None
    """The log-probability of each token; null for the first token of an echoed prompt."""

    tokens: list[str] | None = None
    """The tokens as text."""

    top_logprobs: list[dict[str, float] | None] | None = None
    """For each position the most likely tokens and their log-probabilities; null where there are none."""

    content: list[dict[str, Any]] | None = None
    """The chat form: for each token an object with `token`, `logprob`, `bytes` and `top_logprobs`."""

    additional_properties: dict[str, Any] = field(default_factory=dict)
    """What the server sent beyond these fields."""


@dataclass(kw_only=True, repr=False)
class CreateCompletionResponseChoices(Model):
    """One completion, or a part of one in a stream."""

    text: str | None = None
    """The completion; in a stream, the text since the last chunk."""

    index: int | None = None
    """Which completion this is: prompt number × `n` + completion number. Choices may come in any order."""

    finish_reason: str | None = None
    """Why it ended: see `CreateCompletionResponseChoicesFinishReason`, and expect others. `None` (some servers:
    `""`) in all but the last chunk of a stream."""

    logprobs: CreateCompletionResponseChoicesLogprobs | None = None
    """Log-probabilities, if the request had `logprobs`."""

    additional_properties: dict[str, Any] = field(default_factory=dict)
    """What the server sent beyond these fields (`stop_reason` and `prompt_logprobs` of vLLM…)."""

    def _repr_html_(self) -> str:
        """Return the choice as HTML, for a notebook."""
        from ...view import to_html  # the one import that points backwards

        return to_html(self, fragment=True)


@dataclass(kw_only=True, repr=False)
class CreateCompletionResponse(Model):
    """The completions of a request. Only `choices` is always there; values are as the server sent them.

    Source: the OpenAI API specification, `CreateCompletionResponse`.
    """

    choices: list[CreateCompletionResponseChoices]
    """The completions; empty in some chunks of a stream."""

    id: str | None = None
    """The server's identifier of this response. Not unique on every server."""

    created: int | float | None = None
    """When it was created, in seconds since 1970."""

    model: str | None = None
    """The name of the model, as the server reports it."""

    object: str | None = None
    """`text_completion` on most servers."""

    system_fingerprint: str | None = None
    """The configuration of the server's backend."""

    usage: CompletionUsage | None = None
    """Token counts. In a stream they come never, once, or with every chunk, depending on the server."""

    additional_properties: dict[str, Any] = field(default_factory=dict)
    """What the server sent beyond these fields (`timings` of llama.cpp, `prompt_filter_results` of Azure…)."""

    @property
    def text(self) -> str:
        """The text of the first choice; `""` where it is null, or where there is no choice (the last chunk of a
        stream may have none). With several prompts or `n > 1`, look at `choices`, whose order is the server's."""
        text = self.choices[0].text if self.choices else None
        return text if isinstance(text, str) else ""

    def _repr_html_(self) -> str:
        """Return the completion as HTML, for a notebook."""
        from ...view import to_html  # the one import that points backwards

        return to_html(self, fragment=True)
