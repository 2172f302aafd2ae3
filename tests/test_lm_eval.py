"""`gpt.lm_eval` in a real run of lm-evaluation-harness, offline, on the local engine and tasks of our own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import gpt
from gpt import local, scoring
from gpt.models import shared

CHOICES = [
    {"question": "A class definition", "choices": [" is an executable statement", " cat mat zebra"], "gold": 0},
    {"question": "The for statement is used to ", "choices": ["zzz", "iterate over the elements"], "gold": 1},
]
DOCUMENTS = ["The class is used to iterate over the elements. é", "Return the value. " * 90]
PROMPT = "A class definition"

SCRIPT = """
import json, sys
import gpt, gpt.lm_eval, lm_eval
from gpt.models import shared

url, folder = sys.argv[1:]
common = {"dataset_path": "json", "test_split": "test", "output_type": "multiple_choice"}
def task(name, **more):
    return common | {"task": name, "dataset_kwargs": {"data_files": {"test": f"{folder}/{name}.jsonl"}}} | more

tasks = [
    task("choose", doc_to_text="{{question}}", doc_to_choice="{{choices}}", doc_to_target="gold",
         target_delimiter="", metric_list=[{"metric": "acc"}]),
    task("perplexity", output_type="loglikelihood_rolling", doc_to_text="", doc_to_target="{{text}}",
         metric_list=[{"metric": "word_perplexity"}]),
    task("generate", output_type="generate_until", doc_to_text="{{prompt}}", doc_to_target="x",
         generation_kwargs={"until": ["\\n", "of"], "max_gen_toks": 8}, metric_list=[{"metric": "exact_match"}]),
]
with gpt.Gpt(shared.Security(api_key_auth=""), server_url=url) as s:
    model = gpt.lm_eval.GptLM("tiny", client=s, num_concurrent=4)
    found = lm_eval.simple_evaluate(model=model, tasks=tasks, bootstrap_iters=0)
samples = {name: [sample["resps"] for sample in found["samples"][name]] for name in found["samples"]}
print("RESULT" + json.dumps({"samples": samples, "acc": found["results"]["choose"]["acc,none"]}))
"""


def evaluate(url: str, folder: Path) -> Any:
    """Run the harness in a process of its own; it warns, and keeps what it loads."""
    lines: dict[str, list[dict[str, Any]]] = {
        "choose": CHOICES,
        "perplexity": [{"text": each} for each in DOCUMENTS],
        "generate": [{"prompt": PROMPT}],
    }
    for name, rows in lines.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    environment = {**os.environ, "HF_HOME": str(folder), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    command = [sys.executable, "-c", SCRIPT, url, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.partition("RESULT")[2])


def test_lm_eval_run_of_our_tasks_has_the_models_own_numbers(local_server: local.Server, tmp_path: Path) -> None:
    """Multiple choice, perplexity with the prefix token and rolling windows, and generation: as computed directly."""
    found = evaluate(local_server.url, tmp_path)
    samples = found["samples"]

    with gpt.Gpt(shared.Security(api_key_auth=""), server_url=local_server.url) as s:
        for row, responses in zip(CHOICES, samples["choose"], strict=True):
            question = str(row["question"])
            kept = question.rstrip()  # the harness moves white space to the continuation
            texts = [question[len(kept) :] + each for each in row["choices"]]  # type: ignore[attr-defined]
            scores = scoring.score(s, texts, model="tiny", context=kept)
            assert [response[0][0] for response in responses] == pytest.approx(
                [each.logprob_sum for each in scores], abs=1e-3
            )
        prefix = "<|endoftext|>"
        expected = scoring.score(s, DOCUMENTS, model="tiny", context=prefix, max_length=255)
        rolled = [_number(resps) for resps in samples["perplexity"]]
        assert rolled == pytest.approx([each.logprob_sum for each in expected], rel=1e-4)
        assert None not in expected[0].logprobs
        request = shared.CreateCompletionRequest(model="tiny", prompt=PROMPT, max_tokens=8, temperature=0)
        completion = s.completions.create_completion(request).create_completion_response
        assert completion is not None
        generated = str(completion.choices[0].text).split("\n")[0].split("of")[0]
        assert samples["generate"][0][0][0] == generated
    assert found["acc"] == 1.0


def test_lm_eval_import_without_the_harness_says_what_to_install() -> None:
    """Whoever lacks the extra is told how to get it, and that the distribution is on no index."""
    script = "import sys; sys.modules['lm_eval'] = None; import gpt.lm_eval"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "ImportError: gpt.lm_eval needs the extra 'lm-eval': run pip install '.[lm-eval]' in a clone of gpt-sdk"
    )


def _number(value: Any) -> float:
    while isinstance(value, list):
        value = value[0]
    return float(value)
