"""How sure the model was, token by token, with the tokens it might have chosen instead.

    from gpt import view

    rich.print(view.to_text(choice))                         # in a terminal
    pathlib.Path("page.html").write_text(view.to_html(choice), "utf-8")

Request `logprobs=5`, or as many as the server allows. A notebook displays completions and choices automatically.
"""

from .html import to_html
from .terminal import to_text

__all__ = ["to_html", "to_text"]
