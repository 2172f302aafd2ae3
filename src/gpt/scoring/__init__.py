"""Log-probabilities of texts that you give, where the endpoint would otherwise tell those of what it generates.

    from gpt import scoring

    for score in scoring.score(s, ["The cat sat.", "The sat cat."], model="my-model"):
        print(score.perplexity, score.text)

It asks for `echo=True, logprobs=…, max_tokens=0`, which vLLM, SGLang, llama-cpp-python and OpenAI's base models answer.
llama.cpp's own server, Ollama and TGI ignore `echo`: they are refused with an error rather than scored wrongly.
"""

from .result import Score
from .score import score

__all__ = ["Score", "score"]
