"""A completions endpoint that responds to lists of prompts, as servers do."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from .http_server import Received, ScriptedResponse, json_response


def prompts_of(received: Received) -> list[Any]:
    """Return the prompts of a request, one or several, texts or token ids."""
    prompt = received.json()["prompt"]
    return prompt if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int) else [prompt]


def echo_lists(received: Received) -> ScriptedResponse:
    """Respond to each prompt with itself and the number of the completion; choices come in any order."""
    fields, prompts = received.json(), prompts_of(received)
    n = fields.get("n", 1)
    choices = [_choice(prompt, k, n, number, fields) for number, prompt in enumerate(prompts) for k in range(n)]
    random.Random(len(choices)).shuffle(choices)
    usage = {"prompt_tokens": 3 * len(prompts), "completion_tokens": 2 * len(choices)}
    usage["total_tokens"] = sum(usage.values())
    whole = {"id": "c", "object": "text_completion", "created": 1, "model": "m", "choices": choices, "usage": usage}
    return json_response(whole, x_request_id="req-list")


def _choice(prompt: Any, k: int, n: int, number: int, fields: dict[str, Any]) -> dict[str, Any]:
    choice = {
        "text": f"{prompt}/{k}",
        "index": number * n + k,
        "finish_reason": f"stop {prompt}",
        "logprobs": {"tokens": [f"{prompt}", f"{k}"]} if fields.get("logprobs") else None,
        "own": f"extra of {prompt}",
    }
    if fields.get("return_token_ids"):
        choice |= {"prompt_token_ids": [1, 2, 3], "token_ids": [1] * (1 + k + len(str(prompt)))}
    return choice


def refuse_bad(status: int, bad: Callable[[Any], bool]) -> Callable[[Received], ScriptedResponse]:
    """Respond to lists, but refuse a request when one of its prompts is bad."""

    def response(received: Received) -> ScriptedResponse:
        if any(map(bad, prompts_of(received))):
            return json_response({"error": {"message": "a bad prompt", "code": status}}, status)
        return echo_lists(received)

    return response
