"""A scripted server that says which one it is: its reply to `GET /models` is not part of the script."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.http_server import Received, ScriptedResponse, ScriptedServer, json_response


class ScoringServer(ScriptedServer):
    """A `ScriptedServer` with a `/models`."""

    owned_by: str | None = None
    """What it calls itself; without it, `/models` is a 404."""

    @property
    def posts(self) -> list[Received]:
        """All requests except those for `/models`."""
        return [request for request in self.requests if request.method == "POST"]

    def respond_with(self, response: Callable[[Received], ScriptedResponse]) -> None:
        """Let a function reply to every POST from now on."""
        super().respond_with(lambda request: self._models() if request.method == "GET" else response(request))

    def _scripted(self, request: Received) -> ScriptedResponse:
        return self._models() if request.method == "GET" else super()._scripted(request)

    def _models(self) -> ScriptedResponse:
        if self.owned_by is None:
            return json_response({"error": {"message": "Not Found"}}, 404)
        return json_response({"object": "list", "data": [{"id": "m", "owned_by": self.owned_by}]})
