"""How sure the model was, token by token, with the tokens it might have chosen instead.

    from gpt import view

    rich.print(view.to_text(choice))                         # in a terminal
    pathlib.Path("page.html").write_text(view.to_html(choice), "utf-8")

Ask the server with `logprobs=5`, or as many as it allows. In a notebook, completions and choices show themselves.
"""

from .html import to_html
from .terminal import to_text

__all__ = ["to_html", "to_text"]
