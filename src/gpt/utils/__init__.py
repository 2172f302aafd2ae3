"""Parts that know nothing of gpt: JSON, events, retries, URLs, time."""

from .retries import BackoffStrategy, RetryConfig
from .unset import UNSET, Unset

__all__ = ["UNSET", "BackoffStrategy", "RetryConfig", "Unset"]
