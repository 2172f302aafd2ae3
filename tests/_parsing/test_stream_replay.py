"""Every recorded stream, cut at every byte: the whole way from bytes to chunks must not notice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

import gpt
from gpt.models import errors, shared
from tests.support.fixtures import vllm, vllm_names, wire, wire_names

STREAMS = {name: wire(name) for name in wire_names(".sse")}
STREAMS |= {name: vllm(name).body.encode() for name in vllm_names() if name.startswith("stream_")}


class Feed:
    """The body of a response that arrives in given pieces; the form of it that requests reads."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    def stream(self, amount: int, decode_content: bool = False) -> Iterator[bytes]:
        return iter(self._pieces)

    def close(self) -> None:
        pass

    def release_conn(self) -> None:
        pass


class Replayer:
    """A client whose hook responses with the pieces that were put into it, without the network."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._client = gpt.Gpt(server_url="http://server/v1", hooks=[self._respond])
        self._request = shared.CreateCompletionRequest(model="m", prompt="p")

    def _respond(self, request: requests.PreparedRequest, send: object) -> requests.Response:
        response = requests.Response()
        response.status_code, response.url = 200, request.url or ""
        response.headers["content-type"] = "text/event-stream"
        response.raw = Feed(self._pieces)
        return response

    def replay(self, *pieces: bytes) -> tuple[Any, ...]:
        """Stream the pieces: give each chunk, and how it ended."""
        self._pieces = list(pieces)
        stream = self._client.completions.stream_completion(self._request)
        chunks: list[Any] = []
        try:
            chunks.extend(stream)
        except errors.SDKError as error:
            return chunks, type(error), error.message, error.partial
        return chunks, stream.completed


@pytest.mark.parametrize("name", STREAMS)
def test_stream_split_at_any_byte_reads_as_the_whole(name: str) -> None:
    """Two pieces, wherever they are cut, give what one piece gives."""
    text, replayer = STREAMS[name], Replayer()
    expected = replayer.replay(text)
    assert expected[0] or expected[1] is not True
    for at in range(len(text) + 1):
        assert replayer.replay(text[:at], text[at:]) == expected, f"cut at {at}: {text[:at]!r}"


@pytest.mark.parametrize("name", STREAMS)
def test_stream_sent_byte_by_byte_reads_as_the_whole(name: str) -> None:
    """The smallest pieces give what one piece gives, with empty ones between."""
    text, replayer = STREAMS[name], Replayer()
    pieces = [text[i : i + 1] for i in range(len(text))]
    assert replayer.replay(*pieces) == replayer.replay(text)


@pytest.mark.parametrize("name", STREAMS)
def test_stream_with_other_line_ends_reads_the_same(name: str) -> None:
    """CRLF and CR give what LF gives."""
    text, replayer = STREAMS[name].replace(b"\r\n", b"\n"), Replayer()
    for ending in (b"\r\n", b"\r"):
        other = text.replace(b"\n", ending)
        assert replayer.replay(other) == replayer.replay(text)
        assert replayer.replay(*(other[i : i + 1] for i in range(len(other)))) == replayer.replay(text)


@pytest.mark.parametrize("name", STREAMS)
def test_stream_cut_off_anywhere_ends_well_or_raises_sdk_error(name: str) -> None:
    """A stream that ends anywhere ends well or with a typed error; what came is a beginning of the whole."""
    text, replayer = STREAMS[name], Replayer()
    whole = replayer.replay(text)[0]
    for at in range(0, len(text), 1 + len(text) // 1000):
        chunks, how, *_ = replayer.replay(text[:at])
        assert chunks == whole[: len(chunks)]
        assert isinstance(how, bool) or issubclass(how, errors.SDKError)


@given(st.lists(st.binary(max_size=40) | st.sampled_from([b"data: ", b"\n\n", b'{"choices":[]}', b"[DONE]", b"{"])))
def test_stream_of_any_bytes_yields_chunks_or_raises_sdk_error(pieces: list[bytes]) -> None:
    """Whatever a server sends as a stream, the caller sees chunks or a typed error."""
    chunks, how, *_ = Replayer().replay(*pieces)
    assert all(isinstance(chunk.choices, list) for chunk in chunks)
    assert isinstance(how, bool) or issubclass(how, errors.SDKError)
