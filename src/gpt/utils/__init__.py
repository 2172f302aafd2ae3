"""Parts that know nothing of gpt: JSON, events, retries, URLs, time."""

from .eventstreaming import EventStream
from .retries import BackoffStrategy, RetryConfig
from .unset import UNSET, Unset

__all__ = ["UNSET", "BackoffStrategy", "EventStream", "RetryConfig", "Unset"]
