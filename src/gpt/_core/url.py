"""Server URLs: normalised once, joined by rule, shown without secrets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import SplitResult, unquote, unquote_plus, urlencode, urlsplit

QueryValue = str | int | float | bool | Sequence[str | int | float | bool] | None


def fill(template: str, params: Mapping[str, str] | None) -> str:
    """Replace the `{name}` parts of a server URL.

    Raises:
        ValueError: a part has no value.
    """
    for name, value in (params or {}).items():
        template = template.replace("{" + name + "}", str(value))
    if "{" in template and "}" in template.split("{", 1)[1]:
        missing = template.split("{", 1)[1].split("}", 1)[0]
        raise ValueError(f"server_url: no value for {{{missing}}} in url_params")
    return template


def check_base(text: str, name: str = "server_url") -> str:
    """Normalise a base URL: white space around it and one trailing slash go, a query stays.

    Raises:
        TypeError: it is no string.
        ValueError: it has no http scheme (`http`, `https`, `http+unix`…), no host, or a port that is none.
    """
    if not isinstance(text, str):
        raise TypeError(f"{name}: expected a string, got {type(text).__name__}")
    text = text.strip()
    parts = _parse(text)
    if parts is None:
        raise ValueError(f"{name}: not a URL; its host or port cannot be read")
    if any(c <= " " or c == "\x7f" for c in parts.netloc):
        raise ValueError(f"{name}: not a URL; its host contains a space or a control character")
    # http+unix and the like are for the adapters of a session of the caller's.
    if parts.scheme.lower().partition("+")[0] not in ("http", "https") or not parts.hostname:
        raise ValueError(
            f"{name}: expected a URL such as https://api.openai.com/v1, got {redact(text)!r}"
            " (scheme or host is missing)"
        )
    return parts._replace(path=parts.path.removesuffix("/"), fragment="").geturl()


def join(base: str, path: str, query: Mapping[str, QueryValue] | None = None) -> str:
    """Append a path to a base URL; its own query stays, and `query` wins where both have a name.

    Raises:
        TypeError: `query` is no mapping.
    """
    if query is not None and not isinstance(query, Mapping):
        raise TypeError(f"query: expected a mapping of names to values, got {type(query).__name__}")
    parts = urlsplit(base)
    pairs = [pair for pair in parts.query.split("&") if pair]
    if query:
        pairs = [pair for pair in pairs if unquote_plus(pair.split("=", 1)[0]) not in query]
        added = urlencode([(k, _text(v)) for k, values in query.items() for v in _each(values)])
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
    """Tell whether an address says nothing."""
    return isinstance(text, str) and not text.strip()


def query_names(url: str) -> list[str]:
    """Give the names of the parameters in a URL's query."""
    return [unquote_plus(pair.split("=", 1)[0]) for pair in urlsplit(url).query.split("&") if pair]


def redact(url: str) -> str:
    """Give scheme, host and path: no user, password, query or fragment."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(not a URL)"
    if not parts.netloc:
        return parts.path.split("?")[0].split("@")[-1]
    return parts._replace(netloc=_host(parts), query="", fragment="").geturl()


def _parse(text: str) -> SplitResult | None:
    """Split a URL; `None`, not an exception, when it is none: an exception may show a part of a password."""
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
    return values if isinstance(values, list | tuple) else (values,)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
