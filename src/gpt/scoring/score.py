"""Score texts: in order, or as they come from an iterable of any length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from ..bulk import run
from ..models import errors
from ..sdk import Gpt
from .echo import Echo
from .forced import forced_job
from .jobs import Job, Settings
from .prompts import Ids, Prompt, iter_prompts, make_prompts
from .result import Score, ScoreOutcome
from .run import ScoringRun
from .server import LLAMA_CPP, LLAMA_CPP_PYTHON, ServerInfo
from .windows import windowed_job

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .._http.transport import CallOptions

Method = Literal["auto", "echo", "forced"]

_CALL_OPTIONS = ("retries", "timeout", "deadline", "http_headers", "query", "server_url")
_OURS = (
    *("prompt", "echo", "logprobs", "max_tokens", "stream", "n", "best_of", "suffix", "stop"),
    *("grammar", "json_schema", "logit_bias", "temperature", "n_predict", "n_probs", "post_sampling_probs"),
    *("return_tokens_as_token_ids", "prompt_logprobs", "truncate_prompt_tokens"),
)
"""Fields that decide what a score means; the caller's `additional_properties` may not contain them."""


def score(
    s: Gpt | Sequence[Gpt],
    texts: Iterable[str | Ids],
    *,
    model: str,
    context: str | Ids | Iterable[str | Ids] | None = None,
    logprobs: int = 1,
    batch_size: int = 16,
    max_workers: int = 16,
    method: Method = "auto",
    max_length: int | None = None,
    executor: Executor | None = None,
    window: int | None = None,
    max_failures: int | None = None,
    additional_properties: Mapping[str, Any] | None = None,
    **options: Unpack[CallOptions],
) -> list[Score]:
    """Return the log-probabilities of texts under a model, in their order. The first failure is raised.

    A token that begins in the context and ends in the text counts as the text's; its offset is negative.

    Args:
        s: the client, or several of servers with the same model.
        texts: the texts, or all of them as token ids (lists or NumPy arrays). None may be empty.
        model: the name of the model, as the server knows it.
        context: what comes before each text and is not scored; one for all, or one for each of them.
            Token ids if the texts are.
        logprobs: how many of the likeliest tokens to report at each position, for `Score.top_logprobs`.
        batch_size: how many texts may go into one request; 1 for servers that take a single prompt.
        max_workers: how many requests run at a time.
        method: `"echo"` where the server repeats prompts, `"forced"` for llama.cpp's own server; `"auto"` finds out
            from the server's `/models`, once, which one it is.
        max_length: score longer texts window by window, each of at most so many tokens, with one token of overlap;
            one less than the model's context. Texts (not token ids) need a server with `/tokenize`.
        executor: as for `bulk.run`: where requests are sent from instead of threads of our own.
        window: as for `bulk.run`: how many requests are in flight or queued.
        max_failures: as for `bulk.run`: after how many consecutive failures of the server to stop.
        additional_properties: more fields of the request (`{"add_special_tokens": False}` for vLLM).
        options: `retries`, `timeout`, `deadline`, `http_headers`, `query` and `server_url` of `create_completion`.

    Raises:
        errors.ResponseValidationError: the server ignored `echo` or `logprobs`, or its tokens do not spell the text.
        errors.SDKError: a call failed.
        TypeError, ValueError: an argument cannot be used as it is.
    """
    scorer = _Scorer(s, model, logprobs, method, max_length, additional_properties, options)
    send = _sender(s, executor, max_workers, batch_size, window, max_failures, options)
    prompts = make_prompts(texts, context)
    scores: dict[int, Score] = {}
    with closing(iter(scorer.run(prompts, send, max_workers))) as outcomes:  # type: ignore[type-var]
        for outcome in outcomes:
            if outcome.score is None:
                raise outcome.error or RuntimeError("neither score nor error")
            scores[outcome.index] = outcome.score
    return [scores[index] for index in range(len(prompts))]


def score_iter(
    s: Gpt | Sequence[Gpt],
    texts: Iterable[str | Ids],
    *,
    model: str,
    context: str | Ids | Iterable[str | Ids] | None = None,
    logprobs: int = 1,
    batch_size: int = 16,
    max_workers: int = 16,
    method: Method = "auto",
    max_length: int | None = None,
    executor: Executor | None = None,
    window: int | None = None,
    max_failures: int | None = None,
    additional_properties: Mapping[str, Any] | None = None,
    **options: Unpack[CallOptions],
) -> Iterator[ScoreOutcome]:
    """Score texts and yield an outcome for each in the order of completion.

    Texts are pulled only as fast as outcomes are taken, so any number of them fits into memory; a failure of
    one is its outcome and does not end the run. Arguments are those of `score`.

    Raises:
        errors.SDKError: from the iterator: the server cannot score, or `max_failures` was reached.
        TypeError, ValueError: an argument cannot be used as it is.
    """
    scorer = _Scorer(s, model, logprobs, method, max_length, additional_properties, options)
    send = _sender(s, executor, max_workers, batch_size, window, max_failures, options)
    return iter(scorer.run(iter_prompts(texts, context), send, max_workers))


def _sender(
    s: Any,
    executor: Executor | None,
    max_workers: int,
    batch_size: int,
    window: int | None,
    max_failures: int | None,
    options: Mapping[str, Any],
) -> Any:
    for name, value in (("batch_size", batch_size), ("max_workers", max_workers)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}: expected an integer of at least 1, got {value!r}")
    return partial(
        run,
        s,
        executor=executor,
        max_workers=max_workers,
        batch_size=batch_size,
        window=window,
        max_failures=max_failures,
        **options,
    )


@dataclass
class _Scorer:
    """The jobs of one run. The server is examined when the first text is pulled."""

    s: Any
    model: str
    logprobs: int
    method: Method
    max_length: int | None
    additional_properties: Mapping[str, Any] | None
    options: Mapping[str, Any]

    def __post_init__(self) -> None:
        clients = [self.s] if isinstance(self.s, Gpt) else list(self.s) if isinstance(self.s, list | tuple) else []
        if not clients or not all(isinstance(each, Gpt) for each in clients):
            raise TypeError(f"s: expected a gpt.Gpt or a list of them, got {type(self.s).__name__}")
        if self.method not in ("auto", "echo", "forced"):
            raise ValueError(f"method: expected 'auto', 'echo' or 'forced', got {self.method!r}")
        if self.max_length is not None and (not isinstance(self.max_length, int) or self.max_length < 2):
            raise ValueError(f"max_length: expected an integer of at least 2, got {self.max_length!r}")
        extras = dict(self.additional_properties or {})
        for name in (*extras, *self.options):
            if name in _OURS:
                raise ValueError(f"{name}: scoring sets this field itself; leave it out")
        for name in self.options:
            if name not in _CALL_OPTIONS:
                raise TypeError(f"score: unexpected option {name!r}; expected one of {', '.join(_CALL_OPTIONS)}")
        self._client = clients[0]
        self._is_unknown = True
        self._tokenizes = True
        self._settings = Settings(self.model, self.logprobs, extras)

    def run(self, prompts: Iterable[Prompt | Exception], send: Any, max_workers: int) -> ScoringRun:
        """Return the run over some prompts."""
        tokenizes = self.method != "echo" or self.max_length is not None
        threads = min(max_workers, _TOKENIZING_THREADS) if tokenizes else 0
        return ScoringRun(
            self.jobs(prompts),
            send,
            threads=threads,
            first_step_calls=lambda: self._tokenizes,
            first_alone=lambda: self._is_unknown,
        )

    def jobs(self, prompts: Iterable[Prompt | Exception]) -> Iterator[Job | Exception]:
        """Turn prompts into jobs.

        Raises:
            errors.ResponseValidationError: the server is known to give wrong numbers.
        """
        make: Any = None
        for prompt in prompts:
            if isinstance(prompt, Exception):
                yield prompt
                continue
            make = make or self._look()
            yield make(prompt)

    def _look(self) -> Any:
        server = ServerInfo(self._client, self.model, self.options)
        self._is_unknown = server.kind not in _KNOWN
        if server.kind == LLAMA_CPP_PYTHON and self.method != "forced":
            raise errors.ResponseValidationError(_SHIFTED)
        if self.method == "forced" or (self.method == "auto" and server.kind == LLAMA_CPP):
            make = partial(forced_job, server=server, settings=self._settings)
        else:
            make = Echo(self._settings, kind=server.kind).job  # type: ignore[assignment]
            self._tokenizes = self.max_length is not None
        if self.max_length is None:
            return make
        return partial(windowed_job, server=server, max_length=self.max_length, make_job=make)


_KNOWN = (LLAMA_CPP, "vllm", "sglang")
"""Servers whose capabilities are known in advance."""

_TOKENIZING_THREADS = 4

_SHIFTED = (
    'the server is llama-cpp-python (its /models says owned_by: "me"), whose log-probabilities of a prompt are those'
    " of the wrong token where the model has no beginning-of-text token; serve the same GGUF file by llama.cpp's own"
    " llama-server or by gpt.local, which are scored exactly"
)
