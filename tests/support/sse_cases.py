"""What an SSE decoder must make of tricky input: each case is chunks of bytes and the events in them.

The rules are WHATWG's (https://html.spec.whatwg.org/multipage/server-sent-events.html), but data stays bytes,
an event without data (no data line, or nothing in it) is never dispatched, one unfinished at the end of input
is given by `end()`, and a field called `error` is `event: error` with that data.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .fixtures import wire

Expected = tuple[str, bytes, str]
"""An event: its name, its data, the last id."""


@dataclass(frozen=True)
class SseCase:
    """Feed `chunks` one after another: the events of all feeds are `events`, and `end()` then gives `end`."""

    number: int
    """Which input of the checklist of other clients' tests and failures it comes from; 0: one of ours."""
    name: str
    chunks: tuple[bytes, ...]
    events: tuple[Expected, ...]
    end: Expected | None = None

    @property
    def id(self) -> str:
        """Name the case in pytest's output."""
        return f"{self.number:02}-{self.name}"


NOT_DATA = {
    15: "the body raises half-way: a matter of the stream",
    16: "one event is taken, then the stream is left: a matter of the stream",
    18: "JSON lines: no such decoder here",
    27: "JSON or HTML where a stream was wanted: a matter of HTTP",
    31: "gzip: a matter of the transport",
    32: "the connection's end as framing: a matter of the transport",
    33: "time-outs and lost connections: a matter of the transport",
}
"""The inputs of the checklist that no table of bytes can hold."""


def plain(*data: bytes, name: str = "message", last_id: str = "") -> tuple[Expected, ...]:
    """Return events that differ in their data only."""
    return tuple((name, item, last_id) for item in data)


def cases() -> list[SseCase]:
    """Return every case that is small; their ids are unique."""
    groups = (
        _framing,
        _characters,
        _endings,
        _splits,
        _ids_and_names,
        _skipped,
        _marks,
        _unfinished,
        _payloads,
    )
    return [*_samples(), *(case for group in groups for case in group())]


def large_cases() -> Iterator[SseCase]:
    """Make the cases that take time or memory, one by one; the 64 MiB one is the last."""
    yield from _never_dispatched()
    many = b"".join(b"data:%d\n\n" % i for i in range(2000))
    yield SseCase(11, "2000 events in one chunk", (many,), plain(*(b"%d" % i for i in range(2000))))
    yield SseCase(11, "10000 data lines", (b"data:x\n" * 10_000, b"\n"), plain(b"\n".join([b"x"] * 10_000)))
    value = b"y" * (2 << 20) + "известни\u2028".encode()
    yield SseCase(11, "2 MiB ending in Cyrillic", _cut(b"data:" + value + b"\n\n", 4093), plain(value))
    noise = b":comment\nunknown:x\n" * 5000
    yield SseCase(13, "10000 lines discarded", (*_cut(noise, 97), b"data:ok\n\n"), plain(b"ok"))
    yield SseCase(14, "4096 feeds of one byte", _cut(b"data:" + b"z" * 4089 + b"\n\n", 1), plain(b"z" * 4089))
    block = b"x" * (1 << 20)
    huge = (b"data:", *[block] * 64, b"x\n\n")
    yield SseCase(11, "one event of 64 MiB and a byte", huge, plain(block * 64 + b"x"))


def _framing() -> Iterator[SseCase]:
    foo = b'{"foo":true}'
    yield SseCase(1, "named event", (b"event: completion\ndata: " + foo + b"\n\n",), (("completion", foo, ""),))
    yield SseCase(2, "event without a name", (b"data: " + foo + b"\n\n",), plain(foo))
    yield SseCase(3, "event without data", (b"event: ping\n\n",), ())
    yield SseCase(4, "two events without data", (b"event: ping\n\n", b"event: completion\n\n"), ())
    two = (b"event: ping\ndata: 1\n\n", b"event: completion\ndata: 2\n\n")
    yield SseCase(4, "two events with data", two, (("ping", b"1", ""), ("completion", b"2", "")))
    six = b'event: ping\ndata: {\ndata: "foo":\ndata: \ndata:\ndata: true}\n\n\n'
    yield SseCase(5, "six lines and a blank one too many", (six,), (("ping", b'{\n"foo":\n\n\ntrue}', ""),))
    text = rb'{"foo": "my long\n\ncontent"}'
    yield SseCase(6, "escaped newlines, ended by the next chunk", (b"data: " + text, b"\n\n"), plain(text))
    yield SseCase(
        0,
        "the specification's stock ticker",
        (b"data: YHOO\ndata: +2\ndata: 10\n\n",),
        plain(b"YHOO\n+2\n10"),
    )
    yield SseCase(0, "only one space is taken off", (b"data:a\n\ndata: a\n\ndata:  a\n\n",), plain(b"a", b"a", b" a"))
    yield SseCase(0, "a line without a colon", (b"data\ndata\n\n",), plain(b"\n"))
    yield SseCase(0, "colons in the data", (b"data: a: b:c\n\n",), plain(b"a: b:c"))


def _characters() -> Iterator[SseCase]:
    value = '{"content":"a\u2028b\u0085c"}'.encode()
    yield SseCase(7, "U+2028 and U+0085 are no line ends", (b"data: " + value + b"\n\n",), plain(value))
    cut = (
        b'data: {"content":"',
        b"\xd0",
        b"\xb8\xd0\xb7\xd0",
        b"\xb2\xd0\xb5\xd1\x81\xd1\x82\xd0\xbd\xd0\xb8",
        b'"}\n',
    )
    yield SseCase(8, "Cyrillic cut inside characters", (*cut, b"\n"), plain('{"content":"известни"}'.encode()))
    yield SseCase(
        8,
        "other white space is no line end",
        (b"data: a\x0b\x0c\x1c\x1d\x1eb\n\n",),
        plain(b"a\x0b\x0c\x1c\x1d\x1eb"),
    )


def _endings() -> Iterator[SseCase]:
    yield SseCase(
        17,
        "CR, then LF in the next chunk, is one ending",
        (b"data:a\r", b"\ndata:b\r", b"\n\r", b"\n"),
        plain(b"a\nb"),
    )
    yield SseCase(17, "CR, then LF and LF, keeps the blank line", (b"data:a\r", b"\n\ndata:b\n\n"), plain(b"a", b"b"))
    yield SseCase(17, "CR CR CR LF", (b"data:a\r\r\r\ndata:b\r\r",), plain(b"a", b"b"))
    yield SseCase(17, "CR | CR | CR | LF", (b"data:a\r", b"\r", b"\r", b"\n", b"data:b\r", b"\r"), plain(b"a", b"b"))
    yield SseCase(17, "LF CR is two endings", (b"data:a\n\rdata:b\n\r",), plain(b"a", b"b"))
    yield SseCase(17, "an empty chunk between CR and LF", (b"data:a\r", b"", b"\ndata:b\n\n"), plain(b"a\nb"))


def _splits() -> Iterator[SseCase]:
    for label, ending in (("LF", b"\n"), ("CR", b"\r"), ("CRLF", b"\r\n")):
        text = b"data:ok" + ending * 2
        for at in range(len(text) + 1):
            yield SseCase(9, f"{label} split at {at}", (text[:at], b"", text[at:]), plain(b"ok"))


def _ids_and_names() -> Iterator[SseCase]:
    mixed = b"id:one\r\ndata:X\r\n\ndata:two\n\rdata:unfinished"
    events = plain(b"X", b"two", last_id="one")
    yield SseCase(12, "mixed endings byte by byte", _cut(mixed, 1), events, ("message", b"unfinished", "one"))
    yield SseCase(0, "an id lasts", (b"id: 1\ndata: a\n\ndata: b\n\n",), plain(b"a", b"b", last_id="1"))
    yield SseCase(
        0,
        "an empty id ends it",
        (b"id: 1\ndata: a\n\nid\ndata: b\n\n",),
        (*plain(b"a", last_id="1"), *plain(b"b")),
    )
    yield SseCase(
        0,
        "an id with NUL is ignored",
        (b"id: 1\ndata: a\n\nid: 2\x00\ndata: b\n\n",),
        plain(b"a", b"b", last_id="1"),
    )
    yield SseCase(0, "a name is for one event", (b"event: x\ndata: a\n\ndata: b\n\n",), (("x", b"a", ""), *plain(b"b")))
    yield SseCase(0, "a name without data is forgotten", (b"event: x\n\ndata: a\n\n",), plain(b"a"))
    yield SseCase(0, "the last of two names counts", (b"event: x\nevent: y\ndata: a\n\n",), (("y", b"a", ""),))
    yield SseCase(0, "an empty name is the default", (b"event: x\nevent:\ndata: a\n\n",), plain(b"a"))
    yield SseCase(0, "a name after the data", (b"data: a\nevent: x\n\n",), (("x", b"a", ""),))


def _skipped() -> Iterator[SseCase]:
    ok = b"data: ok\n\n"
    yield SseCase(19, "retry alone", (b"retry: 3000\n\n" + ok,), plain(b"ok"))
    yield SseCase(19, "id alone, which lasts", (b"id: 7\n\n" + ok,), plain(b"ok", last_id="7"))
    yield SseCase(19, "an empty data line", (b"data: \n\n" + ok,), plain(b"", b"ok"))
    yield SseCase(19, "a name alone", (b"event: ping\n\n" + ok,), plain(b"ok"))
    yield SseCase(20, "a comment after an id", (b"id: 7\ndata: a\n\n: ping\n\n" + ok,), plain(b"a", b"ok", last_id="7"))
    yield SseCase(20, "a comment inside an event", (b"data: a\n: ping\ndata: b\n\n",), plain(b"a\nb"))
    yield SseCase(20, "nothing at all", (), ())
    yield SseCase(20, "blank lines only", (b"\n\r\n\r\n\n",), ())


def _marks() -> Iterator[SseCase]:
    bom, text = b"\xef\xbb\xbf", b"data: a\n\n"
    yield SseCase(21, "a BOM", (bom + text,), plain(b"a"))
    yield SseCase(21, "a BOM split after one byte", (bom[:1], bom[1:] + text), plain(b"a"))
    yield SseCase(21, "a BOM split after two bytes, and empty chunks", (b"", bom[:2], b"", bom[2:], text), plain(b"a"))
    yield SseCase(21, "a BOM, then a comment", (bom + b": hello\n\n" + text,), plain(b"a"))
    yield SseCase(21, "a second BOM is part of the field's name", (bom * 2 + text + text,), plain(b"a"))
    yield SseCase(21, "a BOM later is part of the field's name", (text + bom + text,), plain(b"a"))
    yield SseCase(21, "a BOM in the data stays", (b"data:" + bom + b"a\n\n",), plain(bom + b"a"))
    yield SseCase(21, "a BOM's first byte only", (b"\xef",), ())
    done = plain(b"[DONE]")
    yield SseCase(28, "a space after DONE is the reader's to strip", (b"data: [DONE] \n\n",), plain(b"[DONE] "))
    yield SseCase(28, "DONE without a space before it", (b"data:[DONE]\n\n",), done)
    yield SseCase(28, "DONE as a text", (b'data: {"text":"[DONE]"}\n\n',), plain(b'{"text":"[DONE]"}'))
    yield SseCase(28, "field names are in lower case", (b"DATA: x\n\nData: x\n\n data: x\n\ndata : x\n\n",), ())


def _unfinished() -> Iterator[SseCase]:
    event, part = ("message", b'{"a":1}', ""), ("message", b'{"id":', "")
    yield SseCase(22, "no blank line at the end", (b'data: {"a":1}\n',), (), event)
    yield SseCase(22, "no line end at the end", (b'data: {"a":1}',), (), event)
    yield SseCase(22, "CR at the end", (b'data: {"a":1}\r',), (), event)
    yield SseCase(
        22,
        "DONE without a blank line",
        (b"data: a\n\ndata: [DONE]",),
        plain(b"a"),
        ("message", b"[DONE]", ""),
    )
    yield SseCase(22, "a comment at the end", (b"data: a\n\n: bye",), plain(b"a"))
    yield SseCase(22, "a name at the end", (b"data: a\n\nevent: x\n",), plain(b"a"))
    yield SseCase(22, "half a field's name at the end", (b"data: a\n\ndat",), plain(b"a"))
    yield SseCase(23, "the end without DONE", (wire("w36.sse"),), plain(*_data("w36.sse")))
    yield SseCase(24, "the end inside JSON", (b"data: a\n\n", b'data: {"id":'), plain(b"a"), part)
    yield SseCase(24, "sample w37", (wire("w37.sse"),), (), ("message", b'{"id":"c","obj', ""))


def _payloads() -> Iterator[SseCase]:
    for number, label, data in (
        (25, "broken JSON", b"{oops"),
        (25, "a byte that is no UTF-8", b'{"a":"\xff"}'),
        (26, "an error object", b'{"error": {"message":"m","code":500}}'),
        (26, "an error string", b'{"error":"boom"}'),
        (26, "a flat error", b'{"object":"error","message":"m","code":400}'),
        (26, "a null error", b'{"error": null, "choices":[]}'),
        (29, "usage without choices", b'{"choices":[],"usage":{"total_tokens":3}}'),
        (29, "an empty finish_reason", b'{"choices":[{"text":"a","finish_reason":""}],"usage":null}'),
        (
            29,
            "log-probabilities that are no numbers",
            b'{"logprobs":{"token_logprobs":[null,NaN,-Infinity]}}',
        ),
        (30, "echo of a prompt with line breaks", rb'{"choices":[{"index":1,"text":"a\r\nb\u2028c"}]}'),
    ):
        yield SseCase(number, label, (b"data: " + data + b"\n\n",), plain(data))
    flat = b'{"message":"m","code":500}'
    yield SseCase(26, "an event called error", (b"event: error\ndata: " + flat + b"\n\n",), plain(flat, name="error"))
    yield SseCase(26, "a field called error", (b"error: " + flat + b"\n\n",), plain(flat, name="error"))
    yield SseCase(26, "a field called error, unfinished", (b"error: " + flat,), (), ("error", flat, ""))


def _samples() -> Iterator[SseCase]:
    for number, name in (
        (29, "w21"),
        (28, "w22"),
        (30, "w26"),
        (22, "w27"),
        (29, "w29"),
        (26, "w30"),
        (26, "w31"),
        (26, "w33"),
    ):
        text = wire(f"{name}.sse")
        yield SseCase(number, f"sample {name}", (text,), plain(*_data(f"{name}.sse")))
        yield SseCase(number, f"sample {name} in pieces of 7", _cut(text, 7), plain(*_data(f"{name}.sse")))
    text = wire("w23.sse")
    for size in (1, len(text)):
        yield SseCase(17, f"sample w23 in pieces of {size}", _cut(text, size), plain(*_data("w23.sse")))
    error = json.dumps({"code": 500, "message": "context shift failed", "type": "server_error"}, separators=(",", ":"))
    yield SseCase(26, "sample w32", (wire("w32.sse"),), (("error", error.encode(), ""), *plain(b"[DONE]")))


def _never_dispatched() -> Iterator[SseCase]:
    for line in (b":x\n", b"data:x\n", b"ignored:x\n"):
        end = ("message", b"\n".join([b"x"] * 2000), "") if line.startswith(b"data") else None
        for size in (1, 97, 100_000):
            label = f"2000 lines of {line[:-1].decode()} in pieces of {size}"
            yield SseCase(10, label, _cut(line * 2000, size), (), end)


def _data(name: str) -> Iterable[bytes]:
    """Read the data of a sample with single data lines only."""
    return [line[5:].strip() for line in wire(name).splitlines() if line.startswith(b"data:")]


def _cut(text: bytes, size: int) -> tuple[bytes, ...]:
    return tuple(text[start : start + size] for start in range(0, len(text), size))
