"""Text that is not to be shown."""

from __future__ import annotations


class Secret(str):
    """A string whose `repr` is masked, so that containers that hold it (`dataclasses.asdict`, `vars`) show no key.

    Everything else is that of the string itself: `str(secret)`, `f"{secret}"` and JSON have the text.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        """Return `'***'`, or `''` for an empty one."""
        return "'***'" if self else "''"
