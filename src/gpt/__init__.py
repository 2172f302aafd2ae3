"""A small, fast, typed client for the text completions endpoint of OpenAI, vLLM, llama.cpp and many more."""

from ._core.unset import UNSET
from ._version import __version__
from .sdk import Gpt
from .sdkconfiguration import SDKConfiguration

__all__ = ["UNSET", "Gpt", "SDKConfiguration", "__version__"]
