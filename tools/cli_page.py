"""Render the reference of the command line from the commands' signatures, whatever version of typer is installed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

from typer.models import OptionInfo, ParameterInfo

from gpt.cli import app

INTRO = """\
The command `gpt` comes with the extra `cli`: in a clone `pip install '.[cli]'`, or
`'.[local,cli]'` for `--local` and `gpt serve`, which need llama.cpp. `python -m gpt` is the same.

Completions go to stdout and everything else to stderr. A pipe or a file gets what the model wrote, byte for byte, in
UTF-8; on a terminal, characters that could control it are shown by their names (`<ESC>`).

The exit code is 0; 1 when the API, the network or a file failed; 2 for a usage error; 130 after Ctrl-C (`gpt serve`:
0); 141 when the reader of a pipe has closed it. `GPT_DEBUG=1` shows the traceback of an error.

The server is `--server-url`, or `OPENAI_BASE_URL`, or OpenAI's; the key is `OPENAI_API_KEY`. `gpt --install-completion`
sets up completion for your shell, `gpt --version` shows the version."""


@dataclass(frozen=True)
class Parameter:
    """An argument or an option of a command."""

    name: str
    info: ParameterInfo
    type: Any
    default: Any

    @property
    def is_option(self) -> bool:
        """Tell an option from an argument."""
        return isinstance(self.info, OptionInfo)

    @property
    def spelling(self) -> str:
        """How it is written on the command line."""
        if not self.is_option:
            return f"`{self.info.metavar or self.name}`"
        # In Annotated[...] typer takes the first name for the default, and sorts that out later.
        given = [name for name in (self.info.default, *(self.info.param_decls or ())) if isinstance(name, str)]
        names = "/".join(given or [f"--{self.name.replace('_', '-')}"]).split("/")
        return ", ".join(f"`{name}{self._value}`" for name in names)

    @property
    def _value(self) -> str:
        if self.info.metavar:
            return f" {self.info.metavar}"
        kinds = [kind for kind in (self.type, *get_args(self.type)) if kind in (bool, int, float)]
        return {bool: "", int: " INTEGER", float: " NUMBER"}[kinds[0]] if kinds else " TEXT"

    @property
    def description(self) -> str:
        """What it does, and its default where that is a plain value."""
        text = " ".join((self.info.help or "").split()).replace("|", "\\|")
        if isinstance(self.info.envvar, str):
            text += f" Environment: `{self.info.envvar}`."
        is_plain = isinstance(self.default, str | int | float) and not isinstance(self.default, bool)
        return (
            f"{text} Default: `{self.default}`."
            if is_plain and self.default != "" and "default" not in text.lower()
            else text
        )


def cli_page(note: str) -> str:
    """Render the page."""
    parts = ["# Command line", note, INTRO]
    for command in app.registered_commands:
        if command.callback is not None and not command.hidden:
            name = command.name or command.callback.__name__.replace("_", "-")
            parts += [f"## gpt {name}", *_command(command.callback)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _command(callback: Callable[..., Any]) -> Iterator[str]:
    yield _prose(callback.__doc__ or "")
    parameters = list(_parameters(callback))
    for title, is_option in (("Argument", False), ("Option", True)):
        rows = [f"| {item.spelling} | {item.description} |" for item in parameters if item.is_option == is_option]
        if rows:
            yield "\n".join([f"| {title} | Description |", "| --- | --- |", *rows])


def _parameters(callback: Callable[..., Any]) -> Iterator[Parameter]:
    hints = get_type_hints(callback, include_extras=True)
    for name, parameter in inspect.signature(callback).parameters.items():
        # Python 3.10 puts Optional around the Annotated of a parameter whose default is None.
        for hint in (hints[name], *get_args(hints[name])):
            for info in getattr(hint, "__metadata__", ()):
                if isinstance(info, ParameterInfo) and not info.hidden:
                    yield Parameter(name, info, get_args(hint)[0], parameter.default)


def _prose(text: str) -> str:
    """Render a help text: what stands under `\\b` is kept as it is, as on the terminal."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(_verbatim(part) if part.startswith("\b") else part for part in paragraphs)


def _verbatim(paragraph: str) -> str:
    return f"```sh\n{paragraph.removeprefix(chr(8)).strip()}\n```"
