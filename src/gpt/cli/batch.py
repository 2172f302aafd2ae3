"""`gpt batch`: a file of requests in, a file of answers out."""

from __future__ import annotations

from typing import Annotated

import typer


def batch(
    input: Annotated[str, typer.Argument(help="JSONL of requests; .gz is unpacked, '-' is stdin.")],
    output: Annotated[str, typer.Argument(help="JSONL of answers; an existing one is continued.")],
) -> None:
    """Answer every request of a file."""
    raise NotImplementedError("gpt batch is being built")
