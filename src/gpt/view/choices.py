"""What can be displayed: completions, their choices, and what can be turned into a choice, such as a score."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from ..models.shared import CreateCompletionResponse, CreateCompletionResponseChoices


@runtime_checkable
class HasChoice(Protocol):
    """Something like a `gpt.scoring.Score`, which is in a layer above."""

    def to_choice(self) -> CreateCompletionResponseChoices:
        """Return it in the shape of a completion's choice."""
        raise NotImplementedError


def as_model(
    completion: CreateCompletionResponse | CreateCompletionResponseChoices | HasChoice,
) -> CreateCompletionResponse | CreateCompletionResponseChoices:
    """Return the completion or choice to display."""
    return completion.to_choice() if isinstance(completion, HasChoice) else completion
