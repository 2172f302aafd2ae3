"""Which lines of an input are finished: those in the output, and those that this run has seen."""

from __future__ import annotations

from array import array
from hashlib import blake2b
from typing import Literal

MAX_LINE_NUMBER = 2**33


class FinishedLines:
    """Lines identified by `custom_id` (some 70 bytes plus its length each) or by number and content (8 bytes each).

    `custom_id`s are in UTF-8, with lone surrogates as they are (`surrogatepass`).
    """

    def __init__(self) -> None:
        self._finished: set[bytes] = set()
        self.add_id = self._finished.add
        """Note a `custom_id` that an earlier run has dealt with."""

        self._seen: set[bytes] = set()
        self._digests = array("Q")
        """By line number; 0 where no such line is finished."""

    def add_line(self, number: int, digest: int) -> None:
        """Note a line without `custom_id` that an earlier run has dealt with; `number` is from 1."""
        missing = number + 1 - len(self._digests)
        if missing > 0:
            self._digests.frombytes(bytes(8 * max(missing, min(len(self._digests), 1_000_000))))
        self._digests[number] = digest

    @property
    def has_lines(self) -> bool:
        """Whether lines without `custom_id` are among them."""
        return bool(self._digests)

    def is_finished_id(self, custom_id: bytes) -> bool:
        """Return whether an earlier run has dealt with this line; only the first of several with this id is meant."""
        try:
            self._finished.remove(custom_id)
        except KeyError:
            return False
        self._seen.add(custom_id)
        return True

    def is_first(self, custom_id: bytes) -> bool:
        """Record that this run has seen an id; return whether it is the first time."""
        before = len(self._seen)
        self._seen.add(custom_id)
        return len(self._seen) > before

    def line_state(self, number: int, text: bytes) -> Literal["new", "finished", "changed"]:
        """Return whether an earlier run recorded nothing, this text or another text for the line with this number."""
        known = self._digests[number] if number < len(self._digests) else 0
        if not known:
            return "new"
        return "finished" if known == digest(text) else "changed"


def digest(text: bytes) -> int:
    """Return a 64-bit hash of a line's text, without white space around it; never 0."""
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big") or 1
