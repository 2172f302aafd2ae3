"""Requests and responses as dataclasses."""

from .completionstreamoptions import CompletionStreamOptions
from .completionusage import CompletionUsage, CompletionUsageCompletionTokensDetails, CompletionUsagePromptTokensDetails
from .createcompletionrequest import CreateCompletionRequest, CreateCompletionRequestModel, SupportsToList
from .createcompletionresponse import (
    CreateCompletionResponse,
    CreateCompletionResponseChoices,
    CreateCompletionResponseChoicesFinishReason,
    CreateCompletionResponseChoicesLogprobs,
)
from .security import Security

__all__ = [
    "CompletionStreamOptions",
    "CompletionUsage",
    "CompletionUsageCompletionTokensDetails",
    "CompletionUsagePromptTokensDetails",
    "CreateCompletionRequest",
    "CreateCompletionRequestModel",
    "CreateCompletionResponse",
    "CreateCompletionResponseChoices",
    "CreateCompletionResponseChoicesFinishReason",
    "CreateCompletionResponseChoicesLogprobs",
    "Security",
    "SupportsToList",
]
