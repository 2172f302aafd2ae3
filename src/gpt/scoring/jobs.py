"""The work on one text as a generator: it yields requests, is sent their outcomes, and returns the score.

A method of scoring thus only defines what it sends and how it reads the responses; `run` decides when and where
requests are sent, and many texts can be in flight at a time.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

from ..bulk import Outcome
from ..models import errors
from ..models.shared import CreateCompletionRequest
from .result import Score

_LONGEST_BODY = 4096
_TOO_LONG = ("context length", "context size")
_ADVICE = (
    "a text can have one token less than the model's length, for a server keeps room to generate one;"
    " max_length= scores longer texts window by window"
)

Requests = list[CreateCompletionRequest]
Job = Generator[Requests, Sequence[Outcome], Score]


@dataclass(frozen=True)
class Settings:
    """What is the same for all requests of a run."""

    model: str

    logprobs: int
    """How many alternatives to report at each position."""

    extras: dict[str, Any]
    """More fields of each request."""

    def request(self, prompt: Any, extras: dict[str, Any], **fields: Any) -> CreateCompletionRequest:
        """Make a request; `extras` are fields of the server's own."""
        return CreateCompletionRequest(
            model=self.model, prompt=prompt, additional_properties={**self.extras, **extras}, **fields
        )


def gather(jobs: Sequence[Job]) -> Generator[Requests, Sequence[Outcome], list[Score]]:
    """Run several jobs as one: their next requests are sent together."""
    scores: dict[int, Score] = {}
    waiting: dict[int, Requests] = {}

    def step(number: int, outcomes: Sequence[Outcome] | None) -> None:
        try:
            waiting[number] = next(jobs[number]) if outcomes is None else jobs[number].send(outcomes)
        except StopIteration as end:
            scores[number] = end.value

    for number in range(len(jobs)):
        step(number, None)
    while waiting:
        pending = list(waiting.items())
        outcomes = iter((yield [request for _, requests in pending for request in requests]))
        waiting.clear()
        for number, requests in pending:
            step(number, [next(outcomes) for _ in requests])
    return [scores[number] for number in range(len(jobs))]


def completed(outcome: Outcome) -> Any:
    """Return an outcome's completion.

    Raises:
        Exception: the error that it has instead.
    """
    error = outcome.error
    if error is None:
        return outcome.response
    if isinstance(error, errors.BadRequestError) and any(words in error.message for words in _TOO_LONG):
        message = f"{error.message}; {_ADVICE}"
        raise errors.BadRequestError(message, error.status_code, error.body, error.raw_response) from None
    raise error


def refusal(problem: str, response: Any = None) -> errors.ResponseValidationError:
    """Make the error for a response that is not about the text."""
    body = "" if response is None else response.to_json()
    return errors.ResponseValidationError(problem, None if response is None else 200, body[:_LONGEST_BODY])


def cut(text: str) -> str:
    """Return a text for a message, shortened if it is long."""
    return repr(text if len(text) <= 60 else f"{text[:60]}…")
