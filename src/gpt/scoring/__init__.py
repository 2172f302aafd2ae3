"""Score given texts: their log-probabilities and perplexity under a model.

    from gpt import local, scoring

    with local.Server() as server, gpt.Gpt(server_url=server.url) as s:
        for score in scoring.score(s, ["A class definition.", "A definition class."], model="tiny"):
            print(score.perplexity, score.text)

There are two methods that give the same numbers, and one request finds out which one the server needs. vLLM, SGLang
and OpenAI repeat a prompt with its log-probabilities (`echo`). llama.cpp's own server, and so `gpt.local`, is made to
generate the text itself (forced decoding). A number is only returned if it provably belongs to the text; otherwise
there is an error.
"""

from .result import Score, ScoreOutcome
from .score import score, score_iter

__all__ = ["Score", "ScoreOutcome", "score", "score_iter"]
