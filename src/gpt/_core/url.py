"""Server URLs: normalised once, joined by rule, displayed without secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.parse import SplitResult, parse_qsl, quote, unquote, unquote_plus, urlencode, urljoin, urlsplit

QueryValue = str | int | float | bool | Sequence[str | int | float | bool] | None


def fill(template: str, params: Mapping[str, str] | None) -> str:
    """Replace the `{name}` parts of a server URL.

    Values are quoted, so that none can change the host in the template. Only a value in place of a host, a port or the
    whole beginning may contain the characters that belong there (`:` and, at the very beginning, `/`).

    Raises:
        TypeError: `params` is not a mapping.
        ValueError: a part has no value.
    """
    if params is not None and not isinstance(params, Mapping):
        raise TypeError(f"url_params: expected a mapping of names to values, got {type(params).__name__}")
    for name, value in (params or {}).items():
        place = template.find("{" + name + "}")
        in_host = "/" not in template[:place].partition("://")[2]
        safe = ":/" if place == 0 else ":[]" if in_host else "/"
        template = template.replace("{" + name + "}", quote(str(value), safe=safe))
    if "{" in template and "}" in template.split("{", 1)[1]:
        missing = template.split("{", 1)[1].split("}", 1)[0]
        raise ValueError(f"server_url: no value for {{{missing}}} in url_params")
    return template


def check_base(text: str, name: str = "server_url") -> str:
    """Normalise a base URL: strip white space around it and one trailing slash, keep a query.

    Raises:
        TypeError: it is not a string.
        ValueError: it has no http scheme (`http`, `https`, `http+unix`…), no host, or an invalid port.
    """
    if not isinstance(text, str):
        raise TypeError(f"{name}: expected a string, got {type(text).__name__}")
    text = text.strip()
    parts = split(text)
    if parts is None:
        raise ValueError(f"{name}: not a URL; its host or port cannot be read")
    if any(c <= " " or c == "\x7f" for c in parts.netloc):
        raise ValueError(f"{name}: not a URL; its host contains a space or a control character")
    if "%" in _host(parts) and parts.scheme.lower() in ("http", "https") and "[" not in _host(parts):
        raise ValueError(f"{name}: not a URL; its host contains a character that a host cannot have")
    # http+unix and the like are handled by adapters of the caller's session.
    if parts.scheme.lower().partition("+")[0] not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{name}: expected a URL such as http://localhost:8000/v1, {_what_is_wrong(text, parts)}")
    return parts._replace(path=parts.path.removesuffix("/"), fragment="").geturl()


def _what_is_wrong(text: str, parts: SplitResult) -> str:
    """Describe an invalid server URL and what may have been meant, without its password."""
    if "@" not in text and "?" not in text and re.fullmatch(r"[\w.-]+(:\d+)?(/\S*)?", text, re.ASCII):
        return f"got {text!r}; did you mean 'http://{text}'?"
    if parts.netloc and parts.hostname:
        return f"got the scheme {parts.scheme!r}"
    return f"got {redact(text)!r} (scheme or host is missing)"


def join(base: str, path: str, query: Mapping[str, QueryValue] | None = None) -> str:
    """Append a path to a base URL; its own query stays, and `query` wins where both have a name.

    Raises:
        TypeError: `query` is not a mapping, or a value is not a string, number, boolean, or sequence of them.
    """
    if query is not None and not isinstance(query, Mapping):
        raise TypeError(f"query: expected a mapping of names to values, got {type(query).__name__}")
    parts = urlsplit(base)
    pairs = [pair for pair in parts.query.split("&") if pair]
    if query:
        pairs = [pair for pair in pairs if unquote_plus(pair.split("=", 1)[0]) not in query]
        added = urlencode([(_name(k), _text(k, v)) for k, values in query.items() for v in _each(values)])
        pairs += [added] if added else []
    return parts._replace(path=parts.path + path, query="&".join(pairs)).geturl()


def split_userinfo(url: str) -> tuple[str, tuple[str, str] | None]:
    """Take `user:password@` out of a URL."""
    parts = urlsplit(url)
    if parts.username is None:
        return url, None
    bare = parts._replace(netloc=_host(parts))
    return bare.geturl(), (unquote(parts.username), unquote(parts.password or ""))


def is_blank(text: object) -> bool:
    """Return whether an address is blank."""
    return isinstance(text, str) and not text.strip()


def query_names(url: str) -> list[str]:
    """Return the names of the parameters in a URL's query."""
    return [unquote_plus(pair.split("=", 1)[0]) for pair in urlsplit(url).query.split("&") if pair]


def query_pairs(url: str) -> list[tuple[str, str]]:
    """Return the parameters in a URL's query."""
    parts = split(url)
    return parse_qsl(parts.query, keep_blank_values=True) if parts is not None else []


def with_query(url: str, pairs: Sequence[tuple[str, str]]) -> str:
    """Return a URL with this query."""
    return f"{url}?{urlencode(pairs)}" if pairs else url


def resolve(url: str, reference: str) -> str:
    """Resolve a reference, such as a `Location`, against a URL; empty if it cannot be read."""
    try:
        return urljoin(url, reference)
    except ValueError:
        return ""


def base_of(url: str, path: str) -> str:
    """Return the base URL from which `join` makes this URL with `path`; empty if there is none."""
    parts = split(url)
    if parts is None or parts.scheme not in ("http", "https") or not parts.netloc or not parts.path.endswith(path):
        return ""
    return parts._replace(path=parts.path.removesuffix(path), fragment="").geturl()


def redact(url: str) -> str:
    """Return scheme, host and path: no user, password, query or fragment."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(not a URL)"
    if not parts.netloc:
        return parts.path.split("?")[0].split("@")[-1]
    return parts._replace(netloc=_host(parts), query="", fragment="").geturl()


def split(text: str) -> SplitResult | None:
    """Split a URL; return `None` for an invalid one, since an exception may show a part of a password."""
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return None
    return parts


def _host(parts: SplitResult) -> str:
    return parts.netloc.rpartition("@")[2]


def _each(values: QueryValue) -> Sequence[object]:
    if values is None:
        return ()
    return values if isinstance(values, Sequence) and not isinstance(values, str | bytes | bytearray) else (values,)


def _name(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"query: expected names to be strings, got {type(name).__name__}")
    return name


def _text(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str | int | float):
        raise TypeError(
            f"query[{name!r}]: expected a string, number, boolean or a sequence of them, got {type(value).__name__}"
        )
    return str(value)
