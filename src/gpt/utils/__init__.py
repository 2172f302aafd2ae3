"""Parts that do not depend on the rest of gpt: JSON, events, retries, URLs, time."""

from .._core.unset import UNSET, Unset
from .eventstreaming import EventStream
from .retries import BackoffStrategy, RetryConfig

__all__ = ["UNSET", "BackoffStrategy", "EventStream", "RetryConfig", "Unset"]
