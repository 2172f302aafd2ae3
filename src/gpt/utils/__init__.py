"""Settings and streams that applications name: retries, `UNSET`, event streams."""

from .._core.unset import UNSET, Unset
from .eventstreaming import EventStream
from .retries import BackoffStrategy, RetryConfig

__all__ = ["UNSET", "BackoffStrategy", "EventStream", "RetryConfig", "Unset"]
