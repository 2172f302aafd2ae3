"""A small, fast, typed client for the text completions endpoint of OpenAI, vLLM, llama.cpp and many more."""

from ._version import __version__
from .sdk import Gpt
from .sdkconfiguration import SDKConfiguration
from .utils.unset import UNSET

__all__ = ["UNSET", "Gpt", "SDKConfiguration", "__version__"]
