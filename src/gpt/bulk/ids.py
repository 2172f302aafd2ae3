"""A set of names that is small: 16 bytes a name and room to grow, where Python's own takes above a hundred."""

from __future__ import annotations

from array import array
from hashlib import blake2b
from typing import Literal

State = Literal["new", "finished", "seen"]

_PARTS = 64
_FIRST_SIZE = 16
_SEEN = 1
_TAKEN = 2
_FLAGS = _SEEN | _TAKEN


class Ids:
    """Names by their 126-bit hashes, each marked as seen or not.

    In many small tables, since one that grows is there twice for a moment.
    """

    def __init__(self) -> None:
        self._parts = [_Table() for _ in range(_PARTS)]

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __contains__(self, name: str) -> bool:
        part, high, low = self._look_up(name)
        return (high, low) in part

    def finish(self, name: str) -> None:
        """Note that a name was dealt with by an earlier run."""
        part, high, low = self._look_up(name)
        part.put(high, low)

    def see(self, name: str) -> State:
        """Note that this run has come across a name, and tell what was known of it."""
        part, high, low = self._look_up(name)
        return part.see(high, low)

    def _look_up(self, name: str) -> tuple[_Table, int, int]:
        high, low = _hash(name)
        return self._parts[high % _PARTS], high // _PARTS, low


class _Table:
    """Hashes in open addressing."""

    def __init__(self) -> None:
        self._size = _FIRST_SIZE
        self._count = 0
        self._table = array("Q", bytes(16 * self._size))

    def __len__(self) -> int:
        return self._count

    def __contains__(self, hash: tuple[int, int]) -> bool:
        return self._table[self._find(*hash)] != 0

    def see(self, high: int, low: int) -> State:
        """Note that a hash was come across, and tell what was known of it."""
        slot = self._find(high, low)
        known = self._table[slot]
        if known:
            self._table[slot] |= _SEEN
            return "seen" if known & _SEEN else "finished"
        self.put(high, low | _SEEN)
        return "new"

    def put(self, high: int, low: int) -> None:
        """Add a hash with its flags, or replace it."""
        slot = self._find(high, low)
        if not self._table[slot]:
            self._count += 1
        self._table[slot], self._table[slot + 1] = low, high
        if self._count * 4 > self._size * 3:
            self._grow()

    def _find(self, high: int, low: int) -> int:
        """Give the index of a hash's lower half, or of the free place where it would go."""
        table, mask = self._table, self._size - 1
        place = high & mask
        while (found := table[2 * place]) and not (table[2 * place + 1] == high and found | _FLAGS == low | _FLAGS):
            place = (place + 1) & mask
        return 2 * place

    def _grow(self) -> None:
        old = self._table
        self._size *= 2
        self._count = 0
        self._table = array("Q", bytes(16 * self._size))
        for slot in range(0, len(old), 2):
            if old[slot]:
                self.put(old[slot + 1], old[slot])


def _hash(name: str) -> tuple[int, int]:
    digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little") & ~_SEEN | _TAKEN
