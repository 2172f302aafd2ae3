"""A model class for lm-evaluation-harness (`lm_eval`, tried with 0.4.13), registered as `gpt-sdk` when imported.

    import gpt.lm_eval
    import lm_eval

    with gpt.Gpt(server_url="http://localhost:8000/v1") as s:
        lm_eval.simple_evaluate(model=gpt.lm_eval.GptLM("my-model", client=s), tasks=["arc_easy"])

It scores as `gpt.scoring` does, on every engine and with a proof for each number, and treats contexts as the harness's
own `local-completions` does: an empty one is the model's end-of-text token, and white space at its end belongs to the
continuation. Needs the extra `lm-eval`: `pip install '.[lm-eval]'` in a clone of gpt-sdk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

try:
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model
    from tqdm import tqdm
except ImportError as error:
    raise ImportError(
        "gpt.lm_eval needs the extra 'lm-eval': run pip install '.[lm-eval]' in a clone of gpt-sdk"
    ) from error

from ._core import codec
from .bulk import run
from .models.shared import CreateCompletionRequest
from .scoring import Score, score_iter
from .scoring.server import ServerInfo, root_of
from .sdk import Gpt

__all__ = ["GptLM"]

_MOST_STOPS = 4
"""How many stop sequences servers accept; the text is cut at any others here."""

_FIELDS = frozenset(each.name for each in fields(CreateCompletionRequest))


@register_model("gpt-sdk")
class GptLM(LM):  # type: ignore[misc]  # the harness is not typed
    """A model behind a completions endpoint."""

    def __init__(
        self,
        model: str,
        *,
        client: Gpt | None = None,
        base_url: str | None = None,
        prefix_token: str | None = None,
        max_length: int | None = None,
        max_gen_toks: int = 256,
        num_concurrent: int = 16,
        batch_size: int | str = 16,
        **ignored: Any,
    ) -> None:
        """Name the model and how to reach it; nothing is sent yet.

        Args:
            model: the name of the model, as the server knows it.
            client: the client, which the caller closes; without it, one is made for `base_url`.
            base_url: the server's base URL, up to `/v1`; without it `OPENAI_BASE_URL`.
            prefix_token: the text placed before a text without a context: the model's end-of-text token, such as
                `<|endoftext|>`. llama.cpp's server reports it.
            max_length: the model's context in tokens, used to divide long texts; vLLM and llama.cpp report it.
            max_gen_toks: the maximum number of tokens to generate if a task sets none.
            num_concurrent: how many requests run at a time.
            batch_size: how many texts go into one request.
            ignored: options that the harness passes to every model, such as `device`.
        """
        super().__init__()
        self._client = client or Gpt(server_url=base_url)
        self._model = model
        self._prefix = prefix_token
        self._max_length = int(max_length) if max_length is not None else None
        self._max_gen_toks = int(max_gen_toks)
        self._workers = int(num_concurrent)
        self._batch_size = int(batch_size) if str(batch_size).isdecimal() else 16

    @property
    def tokenizer_name(self) -> str:
        """The name of the harness's cache of requests."""
        return self._model

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Return each continuation's log-probability after its context, and whether it is the likeliest."""
        pairs = [self._pair(*request.args) for request in requests]
        results: list[Any] = [None] * len(requests)
        for index, score in self._scores(pairs, "loglikelihood", disable_tqdm=disable_tqdm):
            results[index] = score.logprob_sum, bool(score.is_greedy)
            self.cache_hook.add_partial("loglikelihood", requests[index].args, results[index])
        return results

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Return each text's log-probability after the prefix token, by windows where it is long."""
        pairs = [(self._prefix_token(), request.args[0]) for request in requests]
        results: list[Any] = [None] * len(requests)
        length = self._length()
        for index, score in self._scores(pairs, "loglikelihood_rolling", max_length=length, disable_tqdm=disable_tqdm):
            results[index] = score.logprob_sum
            self.cache_hook.add_partial("loglikelihood_rolling", requests[index].args, results[index])
        return results

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Generate text after each context, up to one of its stop sequences."""
        results: list[Any] = [None] * len(requests)
        outcomes = run(
            self._client,
            (self._request(*request.args) for request in requests),
            max_workers=self._workers,
            batch_size=self._batch_size,
        )
        for outcome in tqdm(outcomes, desc="generate_until", total=len(requests), disable=disable_tqdm):
            if outcome.error is not None:
                raise outcome.error
            assert outcome.response is not None
            text = outcome.response.choices[0].text or ""
            for stop in _stops(requests[outcome.index].args[1]):
                text = text.split(stop, 1)[0]
            results[outcome.index] = text
            self.cache_hook.add_partial("generate_until", requests[outcome.index].args, text)
        return results

    def _scores(
        self,
        pairs: Sequence[tuple[str, str]],
        name: str,
        *,
        max_length: int | None = None,
        disable_tqdm: bool = False,
    ) -> Iterator[tuple[int, Score]]:
        outcomes = score_iter(
            self._client,
            [text for _, text in pairs],
            context=[context for context, _ in pairs],
            model=self._model,
            batch_size=self._batch_size,
            max_workers=self._workers,
            max_length=max_length,
        )
        for outcome in tqdm(outcomes, desc=name, total=len(pairs), disable=disable_tqdm):
            if outcome.score is None:
                raise outcome.error or RuntimeError("neither score nor error")
            yield outcome.index, outcome.score

    def _pair(self, context: str, continuation: str) -> tuple[str, str]:
        """Divide as the harness does: a context is never empty and does not end in white space."""
        if not context:
            return self._prefix_token(), continuation
        kept = context.rstrip()
        return kept or self._prefix_token(), context[len(kept) :] + continuation

    def _prefix_token(self) -> str:
        if self._prefix is None:
            token = self._props().get("eos_token")
            if not isinstance(token, str) or not token:
                raise ValueError(
                    "prefix_token: the server does not tell the model's end-of-text token, which comes before a text"
                    " without a context; give it as prefix_token, such as '<|endoftext|>'"
                )
            self._prefix = token
        return self._prefix

    def _length(self) -> int | None:
        if self._max_length is None:
            self._max_length = ServerInfo(self._client, self._model, {}).length
        return self._max_length

    def _props(self) -> Mapping[str, Any]:
        """Return the properties that llama.cpp's server reports about its model."""
        body = self._client._transport.get("/props", root_of(self._client.sdk_configuration.server_url))
        try:
            value = codec.loads(body or b"{}")
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    def _request(self, context: str, options: Mapping[str, Any]) -> CreateCompletionRequest:
        more = {name: value for name, value in options.items() if name not in _OWN}
        return CreateCompletionRequest(
            model=self._model,
            prompt=context,
            max_tokens=options.get("max_gen_toks", options.get("max_tokens", self._max_gen_toks)),
            temperature=options.get("temperature", 0),
            stop=_stops(options)[:_MOST_STOPS] or None,
            **{name: value for name, value in more.items() if name in _FIELDS},
            additional_properties={name: value for name, value in more.items() if name not in _FIELDS},
        )


_OWN = ("until", "max_gen_toks", "max_tokens", "temperature", "do_sample", "stop", "stream", "n", "prompt", "model")


def _stops(options: Mapping[str, Any]) -> list[str]:
    until = options.get("until") or []
    return [stop for stop in ([until] if isinstance(until, str) else until) if stop]
