"""Bounds the connections of REST: how many there may be, and how long each may wait for its client.

What a connection waits for is looked at a few times a minute, or more often where a limit is short, which costs a
request nothing. A call of the model may take as long as it likes.
"""

import asyncio
import json
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import h11
from starlette.types import Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

from model.serving.options import Options

_CLOSING_SECONDS = 5.0
_LOOKS = 8
_LONGEST_PAUSE = 1.0


class Connections:
    """Makes the connections of one server; uvicorn gets it as its protocol's class.

    Args:
      options: the command line's.

    Attributes:
      most: how many there may be.
    """

    def __init__(self, options: Options) -> None:
        self.most = options.max_connections
        self._request_s = options.request_s
        self._seconds = {
            "idle": options.idle_s,
            "head": options.request_s,
            "body": options.request_s,
            "answer": options.request_s,
            "closing": _CLOSING_SECONDS,
        }
        self._open: set[ClientConnection] = set()

    def __call__(self, *arguments: Any, **keywords: Any) -> "ClientConnection":
        """A new connection, as uvicorn makes one."""
        return ClientConnection(self, *arguments, **keywords)

    def opened(self, connection: "ClientConnection") -> bool:
        """Remembers a connection; tells whether there may be one more."""
        self._open.add(connection)
        return len(self._open) <= self.most

    def closed(self, connection: "ClientConnection") -> None:
        """Forgets a connection."""
        self._open.discard(connection)

    async def watch(self) -> None:
        """Ends connections that wait for their client for too long, for ever."""
        while True:
            await asyncio.sleep(min([_LONGEST_PAUSE, *(seconds / _LOOKS for seconds in self._seconds.values())]))
            now = asyncio.get_running_loop().time()
            for connection in list(self._open):
                waits = connection.waits(now)
                if waits is not None and now - waits[1] > self._seconds[waits[0]]:
                    connection.end(waits[0], self._request_s)


class ClientConnection(H11Protocol):
    """Handles one connection of a client.

    It is h11's whatever else is installed: it bounds the size of a request's head, and refuses what is ambiguous.

    Args:
      connections: the connections of the server, to add this one to.
    """

    transports: ClassVar["WeakValueDictionary[tuple[str, int], asyncio.Transport]"] = WeakValueDictionary()

    def __init__(self, connections: Connections, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._all = connections
        self._state: tuple[str | None, Any] = (None, None)
        self._since = 0.0

    @classmethod
    def of(cls, scope: Scope) -> asyncio.Transport | None:
        """Returns the connection of a request: some answers break it on purpose."""
        return cls.transports.get(tuple(scope["client"]))

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Notes that a client has connected; asyncio calls it."""
        self.transports[transport.get_extra_info("peername")[:2]] = transport
        super().connection_made(transport)
        if not self._all.opened(self):
            self._refuse(503, f"{self._all.most} connections are open, all that --max-connections allows; come again")

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets a client that is gone; asyncio calls it."""
        self._all.closed(self)
        super().connection_lost(exc)

    def waits(self, now: float) -> tuple[str, float] | None:
        """Returns what the connection waits for its client to do, and since when; None while the client waits
        for it.
        """
        state = (self._awaited(), self.cycle)
        if state[0] != self._state[0] or state[1] is not self._state[1]:
            self._state, self._since = state, now
        return None if state[0] is None else (state[0], self._since)

    def _awaited(self) -> str | None:
        if self.transport.is_closing():
            return "closing"
        if self.transport.get_write_buffer_size():
            return "answer"
        if self.cycle is not None and not self.cycle.response_complete:
            return "body" if self.cycle.more_body else None
        return "head" if self.conn.their_state is not h11.IDLE or self.conn.trailing_data[0] else "idle"

    def end(self, awaited: str, request_s: float) -> None:
        """Ends the connection, with an answer where there can be one."""
        if awaited == "idle":
            self.shutdown()
        elif awaited in ("head", "body") and self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._refuse(408, f"the request did not arrive within {request_s:g} seconds, see --request-seconds")
        else:
            self.transport.abort()

    def _refuse(self, status: int, message: str) -> None:
        """Answers in place of the application, and closes."""
        body = json.dumps({"error": message}).encode()
        headers = [
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
            ("connection", "close"),
            *([("retry-after", "1")] if status == 503 else []),
        ]
        for event in (h11.Response(status_code=status, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
