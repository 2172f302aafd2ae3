"""What scoring needs to know about a server: which one it is, and how it tokenizes a text."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import orjson

from .._core import codec, url
from .._http.body import read_body
from .._http.transport import CallOptions, Transport
from ..models import errors
from ..sdk import Gpt

LLAMA_CPP = "llamacpp"
"""What llama.cpp's own server calls itself in the `owned_by` of `/v1/models`."""

LLAMA_CPP_PYTHON = "me"
"""What llama-cpp-python calls itself there."""

_KNOWN_IDS = 65536


@dataclass(frozen=True)
class Piece:
    """A token of a server's tokenizer."""

    id: int

    raw: bytes | None
    """Its bytes, which need not be whole characters; `None` if the server does not report them."""

    @property
    def text(self) -> str:
        """The token as text; what is only a part of a character is U+FFFD."""
        return "\ufffd" if self.raw is None else self.raw.decode("utf-8", "replace")


class ServerInfo:
    """One server as one client reaches it. Shared by threads; caches what it finds out."""

    def __init__(self, s: Gpt, model: str, options: Mapping[str, Any]) -> None:
        self._transport: Transport = s._transport
        self._model = model
        self._options = options
        self.base = options.get("server_url") or s.sdk_configuration.server_url
        described = _describe(s._transport, self.base, model)

        self.kind = str(described.get("owned_by") or "")
        """`owned_by` of its `/v1/models`; empty when it has none."""

        meta = described.get("meta")
        vocabulary = meta.get("n_vocab") if isinstance(meta, Mapping) else None

        self.vocabulary = vocabulary if isinstance(vocabulary, int) and vocabulary > 0 else 1_000_000
        """How many tokens the model has, or more."""

        length = described.get("max_model_len") or (meta.get("n_ctx") if isinstance(meta, Mapping) else None)

        self.length = length - 1 if isinstance(length, int) and length > 2 else None
        """How many tokens a text may have, with room to generate one; `None` if the server does not report it."""

        self.has_token_grammar = True
        """Whether it is assumed to accept a grammar of token ids; false after the first refusal."""

        self._piece = lru_cache(_KNOWN_IDS)(self._ask_piece)
        self._affixes: tuple[int, int] | None = None
        self._anchor: int | None = None
        self._lock = threading.Lock()

    def tokenize(self, text: str, *, special: bool = True) -> list[Piece]:
        """Split a text as llama.cpp does for a completion; `special` adds the model's special tokens at its ends.

        Raises:
            errors.SDKError: the server did not respond as llama.cpp does.
        """
        body = {"content": text, "add_special": special, "parse_special": True, "with_pieces": True}
        tokens = self._post("/tokenize", body).get("tokens")
        try:
            return [Piece(token["id"], _bytes_of(token["piece"])) for token in tokens]  # type: ignore[union-attr]
        except (TypeError, KeyError, ValueError):
            raise self._odd("/tokenize", "a list of tokens with id and piece", tokens) from None

    def encode(self, text: str) -> list[int]:
        """Return a text's token ids, by llama.cpp's or vLLM's `/tokenize`; as for a completion, special ones included.

        Raises:
            errors.SDKError: the server has no `/tokenize`.
        """
        if self.kind == LLAMA_CPP:
            return [piece.id for piece in self.tokenize(text)]
        tokens = self._post("/tokenize", {"prompt": text}).get("tokens")
        if not isinstance(tokens, list) or not all(type(each) is int for each in tokens):
            raise self._odd("/tokenize", "a list of token ids", tokens)
        return tokens

    def pieces(self, ids: Sequence[int]) -> list[Piece]:
        """Return the bytes of given token ids, as far as llama.cpp reports them."""
        pieces = self.tokenize(self._detokenize(ids), special=False)
        if [piece.id for piece in pieces] == list(ids):
            return pieces
        return [self._piece(each) for each in ids]

    def affixes(self) -> tuple[int, int]:
        """Return the number of special tokens before and after a text: one and none for most models."""
        if self._affixes is None:
            plain = [piece.id for piece in self.tokenize("a", special=False)]
            full = [piece.id for piece in self.tokenize("a")]
            before = next((n for n in range(len(full)) if full[n : n + len(plain)] == plain), 0)
            self._affixes = before, max(0, len(full) - before - len(plain))
        return self._affixes

    def anchor(self) -> int:
        """Return a token of whole characters, whose log-probability is therefore reported wherever it is forced."""
        if self._anchor is None:
            self._anchor = self.tokenize("a", special=False)[-1].id
        return self._anchor

    def _ask_piece(self, token: int) -> Piece:
        text = self._detokenize([token])
        return Piece(token, None if "\ufffd" in text else text.encode())

    def _detokenize(self, ids: Sequence[int]) -> str:
        content = self._post("/detokenize", {"tokens": list(ids)}).get("content")
        if not isinstance(content, str):
            raise self._odd("/detokenize", "a string", content)
        return content

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Call one of the server's own paths, beside `/v1`."""
        options: CallOptions = {**self._options, "server_url": root_of(self.base)}  # type: ignore[typeddict-item]
        data = orjson.dumps({"model": self._model, **body})
        response = self._transport.post(path, data, stream=False, options=options)
        value = codec.loads(read_body(response))
        return value if isinstance(value, dict) else {}

    def _odd(self, path: str, expected: str, got: object) -> errors.ResponseValidationError:
        return errors.ResponseValidationError(f"{path}: expected {expected}, got {str(got)[:100]}")


_servers: weakref.WeakKeyDictionary[Transport, dict[tuple[str, str], dict[str, Any]]] = weakref.WeakKeyDictionary()


def root_of(base: str) -> str:
    """Return a base URL without the `/v1` at its end: where a server's own paths begin."""
    parts = urlsplit(base)
    return parts._replace(path=parts.path.removesuffix("/").removesuffix("/v1")).geturl()


def _describe(transport: Transport, base: str, model: str) -> dict[str, Any]:
    """Return the model's entry in `/models`, or the first one; looked up once for each client and server.

    Nothing is cached for a server that did not respond, so that the next run tries again.
    """
    known = _servers.setdefault(transport, {})
    if (base, model) not in known:
        body = transport.get("/models", url.check_base(base))
        if body is None:
            return {}
        known[base, model] = _entry(body, model)
    return known[base, model]


def _entry(body: bytes, model: str) -> dict[str, Any]:
    try:
        data = codec.loads(body)
    except ValueError:
        return {}
    listed = data.get("data") if isinstance(data, dict) else None
    entries = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    return next((each for each in entries if each.get("id") == model), entries[0] if entries else {})


def _bytes_of(piece: Any) -> bytes:
    return piece.encode() if isinstance(piece, str) else bytes(piece)
