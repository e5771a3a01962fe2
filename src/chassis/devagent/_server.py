"""An HTTP/1.1 server for one ASGI application in one process, on h11.

The agent's state lives in one process, its clients hold requests open for minutes, and it must stop
at once all the same. That takes less code than making a server of many workers do it.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any
from urllib.parse import unquote

import h11

from chassis.devagent._app import DevAgentApp, Message

_READ_BYTES = 65_536
_GRACE = 0.5


class Server:
    """Serves ``app`` until :meth:`stop`."""

    def __init__(self, app: DevAgentApp) -> None:
        self._app = app
        self._listener: asyncio.Server | None = None
        self._tasks: dict[asyncio.Task[None], _Connection] = {}
        self.host = ""
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Bind and listen; ``host`` and ``port`` are then what was bound.

        :raises OSError: the address cannot be bound.
        """
        self._listener = await asyncio.start_server(self._serve, host, port)
        self.host, self.port = self._listener.sockets[0].getsockname()[:2]

    async def stop(self) -> None:
        """Answer what is open, accept nothing more, and return within a second."""
        if self._listener is not None:
            self._listener.close()
        self._app.stop()
        for task, connection in tuple(self._tasks.items()):
            connection.closing = True
            if not connection.busy:
                task.cancel()
        if self._tasks:
            _, unfinished = await asyncio.wait(self._tasks, timeout=_GRACE)
            for task in unfinished:
                task.cancel()
            if unfinished:
                await asyncio.wait(unfinished, timeout=_GRACE)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a connection is served in a task of its own")
        connection = self._tasks[task] = _Connection(self._app, reader, writer)
        task.add_done_callback(self._tasks.pop)
        try:
            await connection.serve()
        except asyncio.CancelledError:
            pass  # from stop(): the task ends here and nobody awaits its result
        except (OSError, h11.ProtocolError):
            pass  # the client went away or spoke no HTTP: there is nobody to answer
        finally:
            writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(_GRACE):
                    await writer.wait_closed()


class _Connection:
    """One client's connection, request after request."""

    def __init__(self, app: DevAgentApp, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._app = app
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.SERVER)
        self.busy = False
        self.closing = False

    async def serve(self) -> None:
        """Serve requests until the client leaves or the connection cannot be used again."""
        while not self.closing:
            try:
                request = await self._next_event()
            except h11.RemoteProtocolError as error:
                await self._refuse(error)
                return
            if not isinstance(request, h11.Request):
                return
            self.busy = True
            await self._app(self._scope(request), self._receive, self._send)
            await self._writer.drain()
            self.busy = False
            if self._http.their_state is h11.SEND_BODY:
                await self._discard_body()
            if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                return  # not answered, not read to the end, or the client asked to close
            self._http.start_next_cycle()

    async def _discard_body(self) -> None:
        # Closing on a client that still sends would reset the connection, and with it the answer.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GRACE):
                while isinstance(await self._next_event(), h11.Data):
                    pass

    async def _next_event(self) -> Any:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event
            if self._http.they_are_waiting_for_100_continue:
                self._writer.write(self._encode(h11.InformationalResponse(status_code=100, headers=[])))
            self._http.receive_data(await self._reader.read(_READ_BYTES))

    def _scope(self, request: h11.Request) -> dict[str, Any]:
        path, _, query = request.target.partition(b"?")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": request.http_version.decode("ascii"),
            "method": request.method.decode("ascii"),
            "scheme": "http",
            "path": unquote(path.decode("ascii")),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": list(request.headers),
            "client": self._writer.get_extra_info("peername"),
            "server": self._writer.get_extra_info("sockname"),
        }

    async def _receive(self) -> Message:
        if self._http.their_state is h11.SEND_BODY:
            event = await self._next_event()
            if isinstance(event, h11.Data):
                return {"type": "http.request", "body": bytes(event.data), "more_body": True}
            if isinstance(event, h11.EndOfMessage):
                return {"type": "http.request", "body": b"", "more_body": False}
            return {"type": "http.disconnect"}
        # All was read: whatever comes now is the next request, kept for later, or the client's leaving.
        while data := await self._reader.read(_READ_BYTES):
            self._http.receive_data(data)
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message["headers"])
            if self.closing:
                headers.append((b"connection", b"close"))
            event = h11.Response(status_code=message["status"], headers=headers)
            self._writer.write(self._encode(event))
        else:
            if body := message.get("body"):
                self._writer.write(self._encode(h11.Data(data=body)))
            if not message.get("more_body"):
                self._writer.write(self._encode(h11.EndOfMessage()))

    async def _refuse(self, error: h11.RemoteProtocolError) -> None:
        text = f"{error}\n".encode()
        headers = [("content-length", str(len(text))), ("connection", "close")]
        with contextlib.suppress(h11.LocalProtocolError):
            for event in (
                h11.Response(status_code=error.error_status_hint, headers=headers),
                h11.Data(data=text),
                h11.EndOfMessage(),
            ):
                self._writer.write(self._encode(event))
            await self._writer.drain()

    def _encode(self, event: h11.Event) -> bytes:
        return self._http.send(event) or b""
