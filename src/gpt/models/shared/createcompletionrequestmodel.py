"""The models that the official schema names."""

from __future__ import annotations

from enum import Enum


class CreateCompletionRequestModel(str, Enum):
    """Models of OpenAI that speak this endpoint. Any other string is accepted as well."""

    GPT_3_5_TURBO_INSTRUCT = "gpt-3.5-turbo-instruct"
    DAVINCI_002 = "davinci-002"
    BABBAGE_002 = "babbage-002"
