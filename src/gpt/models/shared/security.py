"""The credential of a client."""

from __future__ import annotations

from dataclasses import dataclass

from ..._core.model import Model


@dataclass(kw_only=True, eq=False, repr=False)
class Security(Model):
    """An API key and the header that carries it. Its `repr` shows no key."""

    api_key_auth: str
    """The API key. `""` means no key, even if `OPENAI_API_KEY` is set; white space around it is ignored."""

    header: str = "Authorization"
    """The header: `Authorization` carries `Bearer <key>`, any other (Azure's `api-key`) the bare key."""

    def __repr__(self) -> str:
        shown = "'***'" if self.api_key_auth else "''"
        return f"Security(api_key_auth={shown}, header={self.header!r})"
