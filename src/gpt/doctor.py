"""Find out what a server really honours, by at most 12 requests and 64 generated tokens.

    from gpt import doctor

    report = doctor.probe(s, model="my-model")
    print(report.batch_size, report.scoring)
    for check in report.checks:
        print(check.name, check.result, check.detail)

Servers accept fields that they ignore, so each check examines the response, not just the status.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import orjson

from ._core import codec, url
from ._http.body import read_body
from ._http.transport import CallOptions
from ._parsing.logprobs import tokens_of
from .models import errors, shared
from .sdk import Gpt
from .utils.retries import RetryConfig

Result = Literal["yes", "no", "ignored", "wrong", "unknown"]

PROMPT = "A class definition"
TOKENS = 4
MANY_LOGPROBS = 20
FEW_LOGPROBS = 5
BATCH_SIZE = 32

__all__ = ["Check", "Report", "models", "probe"]

_ONCE = RetryConfig(strategy="none")
_LLAMA_CPP = "llamacpp"
_LLAMA_CPP_PYTHON = "me"


@dataclass(frozen=True)
class Check:
    """The result of one check of a server."""

    name: str
    """What was looked at, such as `lists`."""

    result: Result
    """`yes`; `no`: it is refused or missing; `ignored`: accepted without effect; `wrong`: the response contradicts the
    request or itself; `unknown`: cannot be seen from outside."""

    detail: str = ""
    """What was seen, on one line."""


@dataclass(frozen=True)
class Report:
    """What `probe` found. It holds no key."""

    server: str
    """The base URL, without user, password and query."""

    model: str
    """The model that the requests named."""

    checks: tuple[Check, ...]
    """In the order in which they were made; only the first when the server completes nothing."""

    batch_size: int
    """The `batch_size` to use with `gpt.bulk`: 1 if the server does not accept lists of prompts."""

    scoring: Literal["echo", "forced"] | None
    """The `method` to use with `gpt.scoring`; `None` if the server cannot score."""

    requests: int
    """How many requests were sent."""

    tokens: int
    """The maximum number of tokens that they could generate."""

    @property
    def ok(self) -> bool:
        """Whether plain and streamed completions work and no check found anything wrong."""
        results = {check.name: check.result for check in self.checks}
        return results.get("completion") == results.get("stream") == "yes" and "wrong" not in results.values()

    def to_dict(self) -> dict[str, Any]:
        """Return the report as builtins that JSON can hold, `ok` included."""
        return {"ok": self.ok, **asdict(self)}


def models(s: Gpt) -> list[str]:
    """Return the names of the models that a server lists at `GET /models`; none when it has no such list.

    It is one request, without retries.
    """
    return [entry["id"] for entry in _listed(s)]


def probe(s: Gpt, *, model: str | None = None) -> Report:
    """Find out what a server honours. The requests are sent one after the other, without retries.

    Args:
        s: the client; its time limits, headers and hooks apply, except that `GET /models` has no hooks and a limit of
            10 seconds.
        model: the model's name; without it, the only one that the server lists.

    Raises:
        ValueError: no model is named, and the server does not list exactly one.
    """
    prober = _Prober(s)
    listed = prober.listed()
    if model is None:
        if len(listed) != 1:
            names = ", ".join(entry["id"] for entry in listed) or "none"
            raise ValueError(f"model: name one; the server lists {names}")
        model = listed[0]["id"]
    assert model is not None
    owner = next((str(entry.get("owned_by")) for entry in listed if entry["id"] == model), "")
    return prober.report(model, owner)


class _Prober:
    """One probe of a server; counts what it sends."""

    def __init__(self, s: Gpt) -> None:
        self._s = s
        self._model = ""
        self._requests = 0
        self._tokens = 0
        self._plain: shared.CreateCompletionResponse
        self._refusal: errors.APIStatusError | None = None

    def listed(self) -> list[dict[str, Any]]:
        self._requests += 1
        return _listed(self._s)

    def report(self, model: str, owner: str) -> Report:
        self._model = model
        checks = self._completion()
        if checks[0].result == "yes":
            steps: list[tuple[str, Callable[[], Check | tuple[Check, ...]]]] = [
                ("lists", self._lists),
                ("token ids", self._token_ids),
                ("echo", lambda: self._echo(owner)),
                ("logprobs", self._logprobs),
                ("stream", self._stream),
                ("n", self._n),
                ("suffix", self._suffix),
                ("stop", self._stop),
                ("errors", self._errors),
                ("/tokenize", self._tokenize),
            ]
            for name, step in steps:
                found = self._run(name, step)
                checks += found if isinstance(found, tuple) else (found,)
        results: dict[str, Result] = {check.name: check.result for check in checks}
        return Report(
            server=url.redact(self._s.sdk_configuration.server_url),
            model=model,
            checks=checks,
            batch_size=BATCH_SIZE if results.get("lists") == "yes" else 1,
            scoring=_scoring_method(results, owner),
            requests=self._requests,
            tokens=self._tokens,
        )

    def _run(self, name: str, step: Callable[[], Check | tuple[Check, ...]]) -> Check | tuple[Check, ...]:
        """Run a check; an error becomes its result."""
        try:
            return step()
        except errors.APIStatusError as error:
            self._refusal = self._refusal or error
            return Check(name, "no", _line(str(error)))
        except errors.SDKError as error:
            return Check(name, "wrong", _line(str(error)))

    def _send(self, *, tokens: int = TOKENS, completions: int = 1, **fields: Any) -> Any:
        self._requests += 1
        self._tokens += tokens * completions
        extras = fields.pop("additional_properties", {})
        request = shared.CreateCompletionRequest(
            **{"model": self._model, "prompt": PROMPT, "max_tokens": tokens, "temperature": 0.0, **fields},
            additional_properties=extras,
        )
        return self._s.completions.create_completion(request, retries=_ONCE)

    def _complete(self, **fields: Any) -> shared.CreateCompletionResponse:
        response: shared.CreateCompletionResponse = self._send(**fields).create_completion_response
        return response

    def _completion(self) -> tuple[Check, ...]:
        try:
            result = self._send()
        except errors.SDKError as error:
            return (Check("completion", "no", _line(str(error))),)
        self._plain = result.create_completion_response
        if len(self._plain.choices) != 1:
            return (Check("completion", "wrong", f"{len(self._plain.choices)} choices for one prompt"),)
        named = bool(result.request_id)
        identified = Check("request id", "yes" if named else "no", _line(result.request_id or "no header names it"))
        return Check("completion", "yes", _quote(_text(self._plain))), _check_usage(self._plain), identified

    def _lists(self) -> Check:
        response = self._complete(prompt=[PROMPT, "The list"], tokens=2, completions=2)
        places = [choice.index for choice in response.choices]
        if sorted(place for place in places if place is not None) == [0, 1]:
            return Check("lists", "yes", "a list of prompts gives a choice for each")
        return Check("lists", "wrong", f"2 prompts gave {len(places)} choices with the indexes {_line(str(places))}")

    def _token_ids(self) -> Check:
        response = self._complete(prompt=[1, 2, 3], tokens=1)
        count = _prompt_tokens(response)
        if count is None:
            return Check("token ids", "unknown", "accepted; without usage it cannot be seen how they were read")
        if count in (3, 4):  # one more where the server adds a beginning-of-text token
            return Check("token ids", "yes", f"3 ids were read as {count} tokens")
        return Check("token ids", "wrong", f"3 ids were read as {count} tokens")

    def _echo(self, owner: str) -> Check:
        # One token, not 0, which llama-cpp-python treats as no limit.
        choice = self._complete(echo=True, logprobs=1, tokens=1).choices[0]
        if not str(choice.text or "").startswith(PROMPT):
            return Check("echo", "ignored", f"the text begins {_quote(str(choice.text or ''))}")
        logprobs = [token.logprob for token in tokens_of(choice)]
        if len(logprobs) < 2:
            return Check("echo", "no", "the prompt comes without log-probabilities")
        if logprobs[0] is not None or None in logprobs[1:]:
            return Check("echo", "wrong", "the first token has a log-probability, or a later one has none")
        if owner == _LLAMA_CPP_PYTHON:
            return Check("echo", "wrong", "llama-cpp-python shifts log-probabilities by one token for some models")
        return Check("echo", "yes", "the prompt comes with log-probabilities")

    def _logprobs(self) -> Check:
        try:
            return self._count_logprobs(MANY_LOGPROBS, "")
        except errors.APIStatusError as error:
            self._refusal = self._refusal or error
        return self._count_logprobs(FEW_LOGPROBS, f"{MANY_LOGPROBS} are refused; ")

    def _count_logprobs(self, wanted: int, before: str) -> Check:
        tokens = tokens_of(self._complete(logprobs=wanted, tokens=1).choices[0])
        if not tokens or tokens[0].logprob is None:
            return Check("logprobs", "ignored", f"{before}logprobs={wanted} gave none")
        if tokens[0].logprob > 0.001:
            return Check("logprobs", "wrong", f"{before}a log-probability of {tokens[0].logprob:g} is above 0")
        return Check("logprobs", "yes", f"{before}logprobs={wanted} gave {len(tokens[0].alternatives)} alternatives")

    def _stream(self) -> tuple[Check, ...]:
        result = self._send(stream=True, additional_properties={"stream_options": {"include_usage": True}})
        with result.completion_stream as stream:
            chunks = sum(1 for _ in stream)
            whole = stream.collect()
        usage = _check_usage(whole, "usage in streams")
        if not whole.choices or any(choice.finish_reason is None for choice in whole.choices):
            return Check("stream", "wrong", "it ends without a finish reason"), usage
        if _text(whole) != _text(self._plain):
            detail = f"{_quote(_text(whole))} and not, at temperature 0, the plain {_quote(_text(self._plain))}"
            return Check("stream", "wrong", detail), usage
        return Check("stream", "yes", f"{chunks} chunks, then its proper end; the text is the plain one"), usage

    def _n(self) -> Check:
        count = len(self._complete(n=2, temperature=1.0, tokens=1, completions=2).choices)
        return Check("n", {1: "ignored", 2: "yes"}.get(count, "wrong"), f"n=2 gave {count}")  # type: ignore[arg-type]

    def _suffix(self) -> Check:
        alone = _prompt_tokens(self._plain)
        together = _prompt_tokens(self._complete(suffix=" that ends the text here", tokens=2))
        if alone is None or together is None:
            return Check("suffix", "unknown", "accepted; without usage its effect cannot be seen")
        if together > alone:
            return Check("suffix", "yes", f"it adds {together - alone} tokens to the prompt")
        return Check("suffix", "ignored", "accepted, and the prompt has as many tokens as without it")

    def _stop(self) -> Check:
        plain = _text(self._plain)
        if not plain:
            return Check("stop", "unknown", "the model's text is empty, so there is nowhere to stop")
        stop = plain[len(plain) // 2]
        text = _text(self._complete(stop=[stop]))
        if text == plain.partition(stop)[0]:
            return Check("stop", "yes", f"the text ended before {_quote(stop)}")
        if stop in text:
            return Check("stop", "ignored", f"{_quote(stop)} is in the text all the same")
        return Check("stop", "unknown", "the text was another one than before")

    def _errors(self) -> Check:
        error = self._refusal
        if error is None:
            try:
                self._send(tokens=1, additional_properties={"max_tokens": "many"})
            except errors.APIStatusError as refusal:
                error = refusal
            else:
                return Check("errors", "ignored", "max_tokens='many' is accepted")
        if (error.status_code or 0) >= 500:
            return Check("errors", "wrong", f"a bad request gives {error.status_code}, which clients retry")
        shape = ", ".join(name for name in ("type", "code", "param") if getattr(error, name) is not None)
        return Check("errors", "yes", f"{error.status_code} with {shape or 'neither type nor code'}")

    def _tokenize(self) -> Check:
        self._requests += 1
        root = self._s.sdk_configuration.server_url.partition("?")[0].removesuffix("/").removesuffix("/v1")
        # vLLM reads `model` and `prompt`, llama.cpp `content`.
        body = orjson.dumps({"model": self._model, "prompt": PROMPT, "content": PROMPT})
        options: CallOptions = {"retries": _ONCE, "server_url": root}
        try:
            response = self._s._transport.post("/tokenize", body, stream=False, options=options)
            found = codec.loads(read_body(response).decode("utf-8", "replace"))
        except (errors.SDKError, ValueError) as error:
            return Check("/tokenize", "no", _line(str(error)))
        tokens = found.get("tokens") if isinstance(found, dict) else None
        if not isinstance(tokens, list) or not tokens:
            return Check("/tokenize", "no", "the response has no tokens")
        return Check("/tokenize", "yes", f"{len(tokens)} tokens for {_quote(PROMPT)}")


def _scoring_method(results: dict[str, Result], owner: str) -> Literal["echo", "forced"] | None:
    if results.get("echo") == "yes":
        return "echo"
    return "forced" if owner == _LLAMA_CPP and results.get("logprobs") == "yes" else None


def _check_usage(response: shared.CreateCompletionResponse, name: str = "usage") -> Check:
    usage = response.usage
    prompt, completion = (getattr(usage, each, None) for each in ("prompt_tokens", "completion_tokens"))
    if not isinstance(prompt, int) or not isinstance(completion, int):
        return Check(name, "no", "the response has none")
    if prompt < 1 or not 0 <= completion <= TOKENS:
        return Check(name, "wrong", f"{prompt} prompt and {completion} completion tokens; max_tokens was {TOKENS}")
    return Check(name, "yes", f"{prompt} prompt and {completion} completion tokens")


def _prompt_tokens(response: shared.CreateCompletionResponse) -> int | None:
    count = getattr(response.usage, "prompt_tokens", None)
    return count if isinstance(count, int) and count > 0 else None


def _text(response: shared.CreateCompletionResponse) -> str:
    return str(response.choices[0].text or "") if response.choices else ""


def _quote(text: str) -> str:
    return _line(repr(text[:60]))


def _line(text: str) -> str:
    """Return text from a server as one printable line, shortened."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[:2000]).split())
    return line if len(line) <= 200 else f"{line[:200]}…"


def _listed(s: Gpt) -> list[dict[str, Any]]:
    """Return the entries of `GET /models` that have a name."""
    body = s._transport.get("/models")
    try:
        found = None if body is None else codec.loads(body.decode("utf-8", "replace"))
    except ValueError:
        return []
    entries = found.get("data") if isinstance(found, dict) else None
    named = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return [entry for entry in named if isinstance(entry.get("id"), str) and entry["id"]]
