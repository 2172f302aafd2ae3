"""The console script `gpt`, also `python -m gpt`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line, or say in one line how to install it."""
    try:
        from .cli import app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("typer", "click", "rich"):
            raise
        sys.exit("gpt: the command line needs typer: run pip install '.[cli]' in a clone of gpt-sdk")
    app(prog_name="gpt")


if __name__ == "__main__":
    main()
