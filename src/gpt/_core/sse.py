"""Server-sent events from bytes, by the WHATWG rules; no HTTP, no JSON.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
Lines end with LF, CR or CRLF, wherever the bytes are cut. One leading byte-order mark is dropped. `data` stays
bytes: the caller decides what invalid UTF-8 means. One deviation: a field named `error`, which llama.cpp sent
before September 2025 and a strict parser would drop, counts as `event: error` with that data.
"""

from __future__ import annotations

from typing import NamedTuple

_BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One dispatched event."""

    data: bytes
    """The data lines, joined by LF."""

    name: str = "message"
    """The event's type."""

    id: str = ""
    """The last event id seen so far."""

    is_complete: bool = True
    """False if the input ended before the blank line of the event."""


class Decoder:
    """Turn the bytes of an event stream into events, in linear time, holding no more than the unfinished event."""

    def __init__(self) -> None:
        self._bom_buffer: bytes | None = b""
        self._after_cr = False
        self._line: list[bytes] = []
        self._data: list[bytes] = []
        self._name = ""
        self._id = ""
        self._at_boundary = False

    def feed(self, received: bytes) -> list[Event]:
        """Return the events that the next bytes complete."""
        if (
            self._at_boundary
            and received[:6] == b"data: "
            and received.find(b"\n") == len(received) - 2
            and received[-1] == 10
        ):
            data = received[6:-2]
            if b"\r" not in data:
                return [Event(data, "message", self._id)]
        events: list[Event] = []
        for line in self._complete_lines(received):
            if line:
                self._read_field(line)
            elif event := self._dispatch():
                events.append(event)
        self._at_boundary = self._bom_buffer is None and not (self._line or self._data or self._name or self._after_cr)
        return events

    def end(self) -> Event | None:
        """Return the event that the end of the input leaves unfinished, if there is one.

        The specification drops such an event. Some servers end a complete stream without the last blank line, so
        the caller may want to look.
        """
        line = b"".join(self._line)
        self._line = []
        if line:
            self._read_field(line)
        event = self._dispatch()
        return event and event._replace(is_complete=False)

    def _complete_lines(self, received: bytes) -> list[bytes]:
        if self._bom_buffer is not None:
            received = self._without_bom(received)
        if self._after_cr and received:
            self._after_cr = False
            received = received.removeprefix(b"\n")
        if not received:
            return []
        if b"\r" in received:
            # The line is complete at its CR; an LF at the start of the next bytes belongs to it.
            self._after_cr = received.endswith(b"\r")
            received = received.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = received.split(b"\n")
        if lines and self._line:
            lines[0] = b"".join(self._line) + lines[0]
            self._line = []
        if rest:
            self._line.append(rest)
        return lines

    def _without_bom(self, received: bytes) -> bytes:
        head = (self._bom_buffer or b"") + received
        if len(head) < len(_BOM) and _BOM.startswith(head):
            self._bom_buffer = head
            return b""
        self._bom_buffer = None
        return head.removeprefix(_BOM)

    def _read_field(self, line: bytes) -> None:
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
        elif field == b"event":
            self._name = value.decode("utf-8", "replace")
        elif field == b"id" and b"\0" not in value:
            self._id = value.decode("utf-8", "replace")
        elif field == b"error":
            self._name = "error"
            self._data.append(value)

    def _dispatch(self) -> Event | None:
        data, name = self._data, self._name or "message"
        self._data, self._name = [], ""
        return Event(b"\n".join(data), name, self._id) if data else None
