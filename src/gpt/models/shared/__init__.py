"""Requests and answers as dataclasses."""

from .completionstreamoptions import CompletionStreamOptions
from .completionusage import CompletionUsage, CompletionUsageCompletionTokensDetails, CompletionUsagePromptTokensDetails
from .createcompletionrequest import CreateCompletionRequest
from .createcompletionrequestmodel import CreateCompletionRequestModel
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
]
