"""The credential of a client."""

from __future__ import annotations

from dataclasses import dataclass

from ..._core.model import Model
from ..._core.text import Secret


@dataclass(kw_only=True, repr=False)
class Security(Model):
    """An API key and the header that carries it.

    Its `repr` does not show the key, nor does the `repr` of what `vars` and `dataclasses.asdict` return. `to_dict`,
    `to_json` and a pickle contain it.
    """

    api_key_auth: str
    """The API key. `""` means no key, even if `OPENAI_API_KEY` is set; white space around it is ignored."""

    header: str = "Authorization"
    """The header: `Authorization` carries `Bearer <key>`, any other (Azure's `api-key`) the bare key."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.api_key_auth, str):
            self.api_key_auth = Secret(self.api_key_auth)

    def __repr__(self) -> str:
        return f"Security(api_key_auth={Secret(self.api_key_auth)!r}, header={self.header!r})"
