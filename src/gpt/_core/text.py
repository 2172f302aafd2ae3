"""Text fit for messages: keys masked, one line, printable."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote

_MAX_LENGTH = 500

_MIN_SECRET = 6
"""Shorter keys are placeholders (`x`, `EMPTY`), and masking them would spoil the message."""


class Secret(str):
    """A string whose `repr` is masked, so that containers that hold it (`dataclasses.asdict`, `vars`) show no key.

    Otherwise it behaves as the string itself: `str(secret)`, `f"{secret}"` and JSON have the text.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        """Return `'***'`, or `''` for an empty one."""
        return "'***'" if self else "''"


def single_line(text: str, limit: int = _MAX_LENGTH) -> str:
    """Return text fit for a terminal and a log: one line of at most `limit` characters, all of them printable."""
    text = " ".join(text[: limit * 8].split())
    text = text if text.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in text)
    return text if len(text) <= limit else text[:limit] + "…"


def mask(text: str, secrets: Iterable[str]) -> str:
    """Return text with each secret replaced by `***`, in any case, also where it is escaped for JSON or a URL.

    Mask before cutting: a cut inside a secret would leave a part of it.
    """
    for secret in secrets:
        if len(secret) >= _MIN_SECRET:
            forms = {secret, secret.replace("/", "\\/"), quote(secret), quote(secret, safe="")}
            pattern = "|".join(map(re.escape, sorted(forms, key=len, reverse=True)))
            text = re.sub(pattern, "***", text, flags=re.IGNORECASE)
    return text
