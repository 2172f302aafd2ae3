"""The event-stream decoder against the table of inputs, and any stream cut anywhere."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt._core import sse
from gpt._core.sse import Decoder, Event
from tests.support.sse_cases import SseCase, cases, large_cases


def decode(chunks: list[bytes] | tuple[bytes, ...]) -> tuple[list[tuple[str, bytes, str]], Event | None]:
    decoder = Decoder()
    events = [event for chunk in chunks for event in decoder.feed(chunk)]
    return [(event.name, event.data, event.id) for event in events], decoder.end()


@pytest.mark.parametrize("case", [*cases(), *large_cases()], ids=lambda case: case.id)
def test_sse_decoder_given_each_table_input_yields_its_events_and_rest(case: SseCase) -> None:
    """Every input of the table gives its events and its unfinished rest."""
    events, end = decode(case.chunks)
    assert tuple(events) == case.events
    assert (None if end is None else (end.name, end.data, end.id)) == case.end


STREAMS = st.lists(
    st.sampled_from(
        [
            *(b"data: a", b"data:b", b"data", b": c", b"event: e", b"id: 1", b"retry: 1", b"error: x"),
            *(b"\n", b"\r", b"\r\n", b"\n\n", b"", b"\xef\xbb\xbf", "é\u2028".encode()),
        ]
    ),
    max_size=30,
).map(b"".join)


@given(STREAMS, st.lists(st.integers(0, 200), max_size=8))
def test_sse_decoder_given_a_stream_cut_anywhere_yields_the_same_events(stream: bytes, cuts: list[int]) -> None:
    """Any stream cut at any places decodes as the whole does."""
    places = sorted({0, len(stream), *(cut for cut in cuts if cut <= len(stream))})
    pieces = [stream[a:b] for a, b in pairwise(places)]
    assert decode(pieces) == decode([stream])


@given(st.binary(max_size=300))
def test_sse_decoder_given_any_bytes_one_by_one_never_raises(stream: bytes) -> None:
    """Bytes that mean nothing never crash, and fed one by one give what they give at once."""
    assert decode([stream[i : i + 1] for i in range(len(stream))]) == decode([stream])


def test_sse_decoder_given_comments_and_unknown_fields_keeps_nothing() -> None:
    """Comments and unknown fields, however many, leave no trace."""
    decoder = Decoder()
    for _ in range(2000):
        assert decoder.feed(b":x\nignored:y\n") == []
    assert (decoder._line, decoder._data) == ([], [])


def test_sse_decoder_given_half_a_byte_order_mark_keeps_it_in_the_first_line() -> None:
    """Half a mark that does not go on to be one belongs to the first line, however the bytes are cut."""
    whole, cut = sse.Decoder(), sse.Decoder()
    stream = (b"\xef", b"data: a\n\n", b"data: b\n\n")
    events = [event for piece in stream for event in cut.feed(piece)]
    assert events == whole.feed(b"".join(stream)) == [sse.Event(b"b")]
