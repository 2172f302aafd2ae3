"""Measure scoring beside lm-evaluation-harness's `local-completions`, by workers, and on the local engine by slots.

    pip install -e '.[bench]'
    python benchmarks/scoring.py            # prints tables; writes the figures of docs/guides/scoring.md
    python benchmarks/scoring.py --check    # exits 1 and names what misses its target; writes nothing

The stand-in server runs in a process of its own. It takes a fixed time for a request and for each token, its tokens are
words, and the log-probability of one depends on the one before, so that each client's numbers can be compared.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib.metadata import version
from itertools import accumulate, cycle, islice, pairwise
from pathlib import Path
from typing import Any

from compare import piped, serving

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "guides" / "scoring.md"
MARKS = "<!-- Figures: written by benchmarks/scoring.py -->\n", "<!-- End of figures -->"
END_OF_TEXT = "\x03"
TOKEN = " ?[a-zA-Z]+|."
QUESTIONS, CHOICES = 250, 4
SETTINGS = ((16, 16), (64, 16), (16, 64))
"""Batch size and requests at a time."""
SECONDS_A_REQUEST, SECONDS_A_TOKEN = 0.005, 0.00001
LATENCY = 0.05
WORKERS = (1, 2, 4, 8, 16)
SLOTS = (1, 2, 4)
MAX_CPU_SHARE, MAX_WALL_SHARE, MIN_DOUBLING = 1.0, 1.0, 1.5
"""The CPU aimed at is 0.2 of the harness's, and is not reached: reading the JSON of an echo, which has alternatives for
each token of the context too, takes a large part of that alone. `--check` holds what there is."""

Pair = tuple[str, str]


def pairs() -> list[Pair]:
    """Return contexts and continuations: multiple-choice questions of some 130 characters, four choices each."""
    question = "Question {}: which of these words comes next, if the list goes on as it began, with number {}?\nAnswer:"
    choices = [" a fish", " a bird of the air", " the stone", " nothing"]
    return [(question.format(n, n * n), f"{choice} {n % 7}") for n in range(QUESTIONS) for choice in choices[:CHOICES]]


# The stand-in server


def serve(a_request: float, a_token: float) -> None:
    """Repeat prompts with log-probabilities, on a free port, until standard input ends."""
    import orjson
    from server import run, whole

    def reply(head: bytes, body: bytes) -> tuple[bytes, float]:
        value, tokens = respond(head, orjson.loads(body or b"null"))
        return whole(orjson.dumps(value)), a_request + a_token * tokens

    run(reply)


MODELS = {"object": "list", "data": [{"id": "m", "owned_by": "stand-in"}]}


def respond(head: bytes, body: Any) -> tuple[dict[str, Any], int]:
    """Return the response to a request, and how many tokens the server works for it."""
    if head.startswith(b"GET"):
        return MODELS, 0
    if head.startswith(b"POST /tokenize"):
        return {"tokens": encode(body["prompt"])}, 0
    prompt = body["prompt"]
    prompts = prompt if isinstance(prompt, list) and not isinstance(prompt[0], int) else [prompt]
    tokens = [split(each) if isinstance(each, str) else [WORDS[number] for number in each] for each in prompts]
    tail = ["~"] * body.get("max_tokens", 0)
    choices = [choice(index, each + tail) for index, each in enumerate(tokens)]
    return {"id": "c", "object": "text_completion", "model": "m", "choices": choices}, sum(map(len, tokens))


def split(text: str) -> list[str]:
    """Split a text into the model's tokens: words with the space before them, and single characters."""
    return re.findall(TOKEN, text, re.DOTALL)


WORDS = sorted({token for pair in pairs() for token in split("".join(pair))} | {END_OF_TEXT, *map(chr, range(32, 127))})
IDS = {token: number for number, token in enumerate(WORDS)}


def encode(text: str) -> list[int]:
    """Return the ids of a text's tokens."""
    return [IDS[token] for token in split(text)]


def choice(index: int, tokens: list[str]) -> dict[str, Any]:
    """Return the choice that repeats some tokens."""
    logprobs = [None, *(logprob(*two) for two in pairwise(tokens))]
    top = [None, *({token: value, "\x00": -1.5} for token, value in zip(tokens[1:], logprobs[1:], strict=True))]
    offsets = [0, *accumulate(map(len, tokens[:-1]))]
    lists = {"tokens": tokens, "token_logprobs": logprobs, "top_logprobs": top, "text_offset": offsets}
    return {"index": index, "text": "".join(tokens), "finish_reason": "length", "logprobs": lists}


def logprob(before: str, token: str) -> float:
    """Return a number that depends on a token and the one before it."""
    return -((IDS[before] * 31 + IDS[token] * 17) % 997 + 1) / 250


# The contenders


def by_gpt(url: str, batch_size: int, workers: int) -> Callable[[], list[Any]]:
    """Score with `gpt.scoring`."""
    import gpt
    from gpt import scoring
    from gpt.models import shared

    s = gpt.Gpt(shared.Security(api_key_auth="k"), server_url=url)
    contexts, texts = zip(*pairs(), strict=True)

    def work() -> list[Any]:
        found = scoring.score(s, texts, context=contexts, model="m", batch_size=batch_size, max_workers=workers)
        return [[each.logprob_sum, each.is_greedy] for each in found]

    return work


def by_gpt_lm_eval(url: str, batch_size: int, workers: int) -> Callable[[], list[Any]]:
    """Score with the harness and `gpt.lm_eval`."""
    import gpt
    from gpt.lm_eval import GptLM
    from gpt.models import shared

    s = gpt.Gpt(shared.Security(api_key_auth="k"), server_url=url)
    model = GptLM(
        "m", client=s, prefix_token=END_OF_TEXT, max_length=2048, batch_size=batch_size, num_concurrent=workers
    )
    return _by_harness(model)


def by_local_completions(url: str, batch_size: int, workers: int) -> Callable[[], list[Any]]:
    """Score with the harness's own `local-completions`, which sends token ids."""
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    model = LocalCompletionsAPI(
        base_url=f"{url}/completions",
        model="m",
        tokenizer_backend="none",
        batch_size=batch_size,
        num_concurrent=workers,
    )
    # A tokenizer of the server's tokens in place of one from the Hugging Face hub.
    model.tokenizer_backend, model.tokenizer, model.tokenized_requests = "huggingface", tokenizer(), True
    return _by_harness(model)


def tokenizer() -> Any:
    """Return a tokenizer as the harness loads one by a model's name, with the words of the stand-in server."""
    from tokenizers import Regex, Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split
    from transformers import PreTrainedTokenizerFast

    plain = Tokenizer(WordLevel(IDS, unk_token="~"))
    plain.pre_tokenizer = Split(Regex(TOKEN), "isolated")
    fast: Any = PreTrainedTokenizerFast  # untyped in some versions
    return fast(tokenizer_object=plain, eos_token=END_OF_TEXT)


def _by_harness(model: Any) -> Callable[[], list[Any]]:
    from lm_eval.api.instance import Instance

    def instances(kind: str, arguments: list[Any]) -> list[Any]:
        return [Instance(kind, {}, each, index) for index, each in enumerate(arguments)]

    questions = instances("loglikelihood", pairs())
    documents = instances("loglikelihood_rolling", [(context,) for context, _ in pairs()[:20]])

    def work() -> list[Any]:
        return [list(each) for each in model.loglikelihood(questions, disable_tqdm=True)]

    work.rolling = lambda: model.loglikelihood_rolling(documents, disable_tqdm=True)  # type: ignore[attr-defined]
    return work


CONTENDERS = {"gpt.scoring": by_gpt, "gpt.lm_eval": by_gpt_lm_eval, "local-completions": by_local_completions}


def contend(who: str, url: str) -> None:
    """Do what standard input asks for; print the CPU and wall seconds, and a digest of the numbers."""
    sys.stdout, out = sys.stderr, sys.stdout  # the harness prints
    os.environ["OPENAI_API_KEY"] = "k"
    for line in sys.stdin:
        batch_size, workers = json.loads(line)
        work: Any = CONTENDERS[who](url, batch_size, workers)
        work()
        wall, cpu = time.perf_counter(), time.process_time()
        numbers = work()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        rolling = work.rolling() if hasattr(work, "rolling") else []
        print(json.dumps({"wall": wall, "cpu": cpu, "numbers": numbers, "rolling": rolling}), file=out, flush=True)


# The tables


def serving_after(a_request: float, a_token: float) -> AbstractContextManager[str]:
    """Run the stand-in server in another process; yield its base URL."""
    return serving(str(HERE / "scoring.py"), "--serve", str(a_request), str(a_token))


def ask(who: str, url: str, batch_size: int, workers: int) -> dict[str, Any]:
    """Let a contender score everything, in a process of its own."""
    with piped(str(HERE / "scoring.py"), "--contender", who, url) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        print(json.dumps([batch_size, workers]), file=process.stdin, flush=True)
        found: dict[str, Any] = json.loads(process.stdout.readline())
        process.stdin.close()
    return found


def same(one: list[Any], other: list[Any]) -> bool:
    """Return whether two lists of numbers are equal, but for the order in which floats were added."""
    return len(one) == len(other) and all(
        _same(a, b) if isinstance(a, float) else _same(a[0], b[0]) and a[1] == b[1]
        for a, b in zip(one, other, strict=True)
    )


def _same(one: float, other: float) -> bool:
    return abs(one - other) < 1e-9


def beside_the_harness(rounds: int) -> tuple[list[str], list[str]]:
    """Compare everyone at several settings; return a table's lines and what misses its target."""
    figures: dict[tuple[str, tuple[int, int]], list[dict[str, Any]]] = {}
    misses = []
    with serving_after(SECONDS_A_REQUEST, SECONDS_A_TOKEN) as url:
        for _ in range(rounds):
            for setting in SETTINGS:
                for who in CONTENDERS:
                    figures.setdefault((who, setting), []).append(ask(who, url, *setting))
    for (who, setting), found in figures.items():
        peer = figures["local-completions", setting]
        if not all(same(mine["numbers"], theirs["numbers"]) for mine, theirs in zip(found, peer, strict=True)):
            misses.append(f"{who} at {setting}: not the numbers of local-completions")
        if found[0]["rolling"] and not same(found[0]["rolling"], peer[0]["rolling"]):
            misses.append(f"{who} at {setting}: not the rolling numbers of local-completions")

    def best(who: str, what: str) -> tuple[float, tuple[int, int]]:
        return min((statistics.median(each[what] for each in figures[who, s]), s) for s in SETTINGS)

    lines = ["| 1,000 continuations | CPU a text | share | wall | share |", "| --- | ---: | ---: | ---: | ---: |"]
    cpu_peer, wall_peer = best("local-completions", "cpu")[0], best("local-completions", "wall")[0]
    for who in CONTENDERS:
        (cpu, at), (wall, _) = best(who, "cpu"), best(who, "wall")
        cells = [f"`{who}`, batches of {at[0]}, {at[1]} at a time", f"{cpu * 1e6 / len(pairs()):,.0f} µs"]
        cells += [f"{cpu / cpu_peer:.3f}", f"{wall:.2f} s", f"{wall / wall_peer:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
        if who == "gpt.scoring" and cpu / cpu_peer > MAX_CPU_SHARE:
            misses.append(f"{who}: {cpu / cpu_peer:.3f} × the CPU of local-completions, target {MAX_CPU_SHARE}")
        if who == "gpt.scoring" and wall / wall_peer > MAX_WALL_SHARE:
            misses.append(
                f"{who}: {wall / wall_peer:.2f} × the wall time of local-completions, target {MAX_WALL_SHARE}"
            )
    return lines, misses


def by_workers(rounds: int) -> tuple[list[str], list[str]]:
    """Measure the rate against a server of 50 ms, one text a request."""
    rates: dict[int, list[float]] = {}
    with serving_after(LATENCY, 0) as url:
        for _ in range(rounds):
            for workers in WORKERS:
                rates.setdefault(workers, []).append(_rate(url, workers, texts=40 * workers))
    lines, misses = ["| requests at a time | texts a second | of the line above |", "| ---: | ---: | ---: |"], []
    before = 0.0
    for workers in WORKERS:
        rate = statistics.median(rates[workers])
        lines.append(f"| {workers} | {rate:,.0f} | {f'{rate / before:.2f} ×' if before else ''} |")
        if before and rate / before < MIN_DOUBLING:
            misses.append(f"{workers} workers: {rate / before:.2f} × the rate of half as many, target {MIN_DOUBLING}")
        before = rate
    return lines, misses


def by_slots(rounds: int) -> list[str]:
    """Measure the rate of the local engine, by how many texts it decodes at a time."""
    from gpt import local

    lines = ["| slots of `gpt.local` | texts a second |", "| ---: | ---: |"]
    for slots in SLOTS:
        with local.Server(n_parallel=slots) as server:
            rate = statistics.median(_rate(server.url, 2 * slots, texts=200) for _ in range(rounds))
        lines.append(f"| {slots} | {rate:,.0f} |")
    return lines


def _rate(url: str, workers: int, *, texts: int) -> float:
    import gpt
    from gpt import scoring
    from gpt.models import shared

    with gpt.Gpt(shared.Security(api_key_auth=""), server_url=url) as s:
        asked = [text for _, text in islice(cycle(pairs()), texts)]
        scoring.score(s, asked[:2], context="Answer:", model="m")
        begun = time.perf_counter()
        scoring.score(s, asked, context="Answer:", model="m", batch_size=1, max_workers=workers, logprobs=1)
        return texts / (time.perf_counter() - begun)


def report(tables: list[list[str]], rounds: int) -> None:
    """Write the figures into the guide."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("gpt-sdk", "lm_eval", "aiohttp"))
    harness, workers, slots = ("\n".join(lines) for lines in tables)
    text = f"""{MARKS[0]}
Both get the same {len(pairs()):,} numbers from one stand-in server that takes {SECONDS_A_REQUEST * 1000:.0f} ms a
request and {SECONDS_A_TOKEN * 1e6:.0f} µs a token. Each client runs in a process of its own, at the best of three
settings; CPU is that of the client, that of the harness's tokenizer included. Shares are of `local-completions`:

{harness}

One text a request, against a server that takes {LATENCY * 1000:.0f} ms a request:

{workers}

The model of `gpt.local`, by forced decoding, on the cores of this machine ({os.cpu_count()}):

{slots}

Medians of {rounds} rounds of `python benchmarks/scoring.py`, Python {platform.python_version()}; {packages}.

{MARKS[1]}"""
    page = PAGE.read_text()
    head, rest = page.split(MARKS[0], 1)
    PAGE.write_text(head + text + rest.split(MARKS[1], 1)[1])


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Measure scoring.")
    parser.add_argument("--check", action="store_true", help="exit 1 when a target is missed; write nothing")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each measurement (default 3)")
    parser.add_argument("--serve", nargs=2, type=float, help=argparse.SUPPRESS)
    parser.add_argument("--contender", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(*options.serve)
        return 0
    if options.contender:
        contend(*options.contender)
        return 0
    harness, misses = beside_the_harness(options.rounds)
    print(*harness, sep="\n", flush=True)
    workers, more = by_workers(options.rounds)
    print(*workers, sep="\n", flush=True)
    slots = by_slots(options.rounds)
    print(*slots, sep="\n", flush=True)
    for miss in misses + more:
        print(f"missed: {miss}", file=sys.stderr)
    if not options.check:
        report([harness, workers, slots], options.rounds)
    return 1 if options.check and misses + more else 0


if __name__ == "__main__":
    sys.exit(main())
