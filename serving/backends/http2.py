"""Http2Protocol: uvicorn's HTTP/2 with bounds on what a peer leaves unread; used by HttpServer for gRPC.

The one invariant: a stream of which more than :data:`UNREAD_BYTES` wait for its peer's credit produces nothing more,
ends only when all of it was taken, and is reset when nothing is taken for :data:`STALLED_S` seconds.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from uvicorn.protocols.http.zttp_h2_impl import RequestResponseCycle, ZttpH2Protocol
from zttp import Request

UNREAD_BYTES: Final = 1 << 20
"""What may wait of one stream before its application has to wait too; a single larger message may wait alone."""
STALLED_S: Final = 60.0


class Http2Protocol(ZttpH2Protocol):
    """One connection that speaks HTTP/2 alone, with prior knowledge; made by uvicorn."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  uvicorn's own
        super().__init__(*args, **kwargs)
        self._credit = asyncio.Event()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Uvicorn counts idle time from the first frame on; a peer may send none."""
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def data_received(self, data: bytes) -> None:
        """Frames came; what a peer does not read must not grow by its own pings and settings."""
        super().data_received(data)
        self._credit.set()
        if self.flow.write_paused:
            self.flow.pause_reading()

    def resume_writing(self) -> None:
        """The peer reads again, so it is read from again."""
        super().resume_writing()
        self.resume_reading_if_idle()

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever waits for credit need not any more."""
        super().connection_lost(exc)
        self._credit.set()

    def handle_request(self, event: Request) -> None:
        """Begin a stream, whose body is sent no faster than it is taken."""
        super().handle_request(event)
        cycle = self.cycles[event.stream_id]
        cycle.send = self._paced(cycle, cycle.send)  # type: ignore[method-assign]

    def _paced(self, cycle: RequestResponseCycle, send: Callable[..., Any]) -> Callable[..., Any]:
        async def paced(message: Any) -> None:  # noqa: ANN401  ASGI's
            await send(message)
            if message["type"] == "http.response.body":
                await self._taken(cycle, UNREAD_BYTES if message.get("more_body") else 0)

        return paced

    async def _taken(self, cycle: RequestResponseCycle, most: int) -> None:
        """Until at most so many bytes of the stream wait, or nobody takes them."""
        waits, limit = cycle.stream.pending_bytes or 0, self.loop.time() + STALLED_S
        while waits > most and not (cycle.disconnected or self.transport.is_closing()):
            self._credit.clear()
            try:
                async with asyncio.timeout_at(limit):
                    await self._credit.wait()
            except TimeoutError:
                cycle.abort_stream()
                cycle.message_event.set()
                return
            before, waits = waits, cycle.stream.pending_bytes or 0
            if waits < before:
                limit = self.loop.time() + STALLED_S
