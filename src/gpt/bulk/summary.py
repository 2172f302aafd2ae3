"""How a batch stands."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """The lines of an output file and what this run has used."""

    answered: int
    """Lines with an answer."""

    failed: int
    """Lines with an error."""

    resumed: int
    """How many of both were there before this run."""

    prompt_tokens: int
    """Tokens of the prompts of this run, as far as the server counted them."""

    completion_tokens: int
    """Tokens that this run generated, as far as the server counted them."""

    last_error: str | None = None
    """What the line says that failed last in this run."""
