"""Results of calls."""

from .createcompletion import CreateCompletionResponse
from .ratelimit import RateLimit

__all__ = ["CreateCompletionResponse", "RateLimit"]
