"""What is public is listed here: to change the list is to change the API (CONTRIBUTING.md says what that takes)."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest

import gpt
from gpt.models import errors

PUBLIC: dict[str, set[str]] = {
    "gpt": {"UNSET", "Gpt", "SDKConfiguration", "__version__"},
    "gpt.bulk": {"Outcome", "Summary", "run", "run_jsonl"},
    "gpt.cli": {"app"},
    "gpt.doctor": {"Check", "Report", "models", "probe"},
    "gpt.hooks": {"Hook", "Send"},
    "gpt.lm_eval": {"GptLM"},
    "gpt.local": {"Server"},
    "gpt.models.errors": {
        "APIConnectionError",
        "APIStatusError",
        "APITimeoutError",
        "AuthenticationError",
        "BadRequestError",
        "ConflictError",
        "InternalServerError",
        "NotFoundError",
        "PermissionDeniedError",
        "RateLimitError",
        "ResponseTooLargeError",
        "ResponseValidationError",
        "SDKError",
        "StreamInterruptedError",
        "UnprocessableEntityError",
    },
    "gpt.models.operations": {"CreateCompletionResponse", "RateLimit"},
    "gpt.models.shared": {
        "CompletionStreamOptions",
        "CompletionUsage",
        "CompletionUsageCompletionTokensDetails",
        "CompletionUsagePromptTokensDetails",
        "CreateCompletionRequest",
        "CreateCompletionRequestModel",
        "CreateCompletionResponse",
        "CreateCompletionResponseChoices",
        "CreateCompletionResponseChoicesFinishReason",
        "CreateCompletionResponseChoicesLogprobs",
        "Security",
        "SupportsToList",
    },
    "gpt.otel": {"TracedGpt"},
    "gpt.pytest_plugin": {"gpt_client", "gpt_server"},
    "gpt.scoring": {"Score", "ScoreOutcome", "score", "score_iter"},
    "gpt.sdkconfiguration": {"SERVERS", "SDKConfiguration"},
    "gpt.utils": {"UNSET", "BackoffStrategy", "EventStream", "RetryConfig", "Unset"},
    "gpt.view": {"to_html", "to_text"},
}
"""Every module that users may import from, with all its public names."""

ROOTS = ("gpt", "gpt.models")
"""Where whatever is not in `PUBLIC`, nor above it, has to begin with an underscore or be named here."""

REACHED_THROUGH_OTHERS = {"gpt.completions", "gpt.sdk"}
"""Modules of public classes that users reach by `gpt.Gpt`."""


@pytest.mark.parametrize("module", PUBLIC)
def test_package_all_of_each_public_module_lists_the_public_names(module: str) -> None:
    """`__all__` of each public module names what is listed here, no more and no less, and all of it is there."""
    loaded = importlib.import_module(module)
    assert set(loaded.__all__) == PUBLIC[module]
    assert all(hasattr(loaded, name) for name in loaded.__all__)


@pytest.mark.parametrize("root", ROOTS)
def test_package_modules_not_listed_as_public_begin_with_an_underscore(root: str) -> None:
    """A module beside the public ones is listed here, or begins with an underscore."""
    names = {module.name for module in pkgutil.iter_modules(importlib.import_module(root).__path__, f"{root}.")}
    rendered = {name for name in names if not name.rpartition(".")[2].startswith("_")}
    assert rendered - PUBLIC.keys() - REACHED_THROUGH_OTHERS - {"gpt.models"} == set()


def test_package_public_functions_and_classes_have_docstrings() -> None:
    """Each public class and function has a docstring of its own."""
    found = [
        (module, name, getattr(importlib.import_module(module), name)) for module in PUBLIC for name in PUBLIC[module]
    ]
    bare = [f"{module}.{name}" for module, name, item in found if inspect.isroutine(item) and not item.__doc__]
    bare += [
        f"{module}.{name}" for module, name, item in found if inspect.isclass(item) and "__doc__" not in vars(item)
    ]
    assert bare == []


def test_client_signature_by_position_keeps_the_order_of_2023() -> None:
    """`Gpt` takes by position what the SDK of 2023 took, in its order; everything else is keyword-only."""
    parameters = inspect.signature(gpt.Gpt).parameters.values()
    positional = [item.name for item in parameters if item.kind is item.POSITIONAL_OR_KEYWORD]
    assert positional == ["security", "server_idx", "server_url", "url_params", "client", "retry_config"]
    others = [item for item in parameters if item.name not in [*positional, "unknown"]]
    assert all(item.kind is item.KEYWORD_ONLY for item in others)


def test_package_errors_that_are_public_are_sdk_errors() -> None:
    """Every public error is an `SDKError`."""
    assert all(issubclass(getattr(errors, name), errors.SDKError) for name in errors.__all__)
