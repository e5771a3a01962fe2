"""The load: an ordinary client of the gateway that tells what became of each of its requests.

    python -m examples.shop.load --registry 127.0.0.1:8500

It sends at a fixed rate whether answers come or not, counts a request's time from the instant it
was due, and retries nothing. Where the gateways are it learns from the registry, through a client
library that is not chassis's own. After its ready line it writes one line for each request, one for
each turn of the event stream it follows, and ten times a second one that says up to which instant
all is told. Instants are seconds of the machine's monotonic clock.
"""

import asyncio
import itertools
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Coroutine
from typing import Any

import click
import consul
import jwt

from examples.shop.plain import Answer, PlainHTTP, RequestFailed

API_KEY = "demo-key-of-the-web-shop"
ITEMS = ["tea", "honey", "teapot", "cups"]
KINDS = ["catalog"] * 17 + ["order"] * 2 + ["home"]
MIX = [KINDS[7 * each % len(KINDS)] for each in range(len(KINDS))]  # the same, spread out
NEW_TOKEN_EVERY = 1.0
TELL_EVERY = 0.1


class Gateways:
    """The gateways in rotation, as the registry has them."""

    def __init__(self, host: str, port: int) -> None:
        self._consul = consul.Consul(host, port)
        self._turns = itertools.count()
        self.addresses: list[str] = []

    def follow(self) -> None:
        """Ask by blocking queries for ever; runs in a thread of its own."""
        index = None
        while True:
            try:
                index, found = self._consul.health.service("gateway", index=index, wait="20s", passing=True)
            except Exception as error:  # noqa: BLE001 - py-consul passes on those of requests too
                print(f"the registry does not answer: {error!r}", file=sys.stderr, flush=True)
                index = None
                time.sleep(0.5)
            else:
                places = [each["Service"] for each in found]
                self.addresses = [f"http://{place['Address']}:{place['Port']}" for place in places]

    def next(self) -> str:
        """Each in turn.

        :raises RequestFailed: there is none.
        """
        addresses = self.addresses
        if not addresses:
            raise RequestFailed("refused: the registry has no gateway")
        return addresses[next(self._turns) % len(addresses)]


class Load:
    """Requests at ``rate`` a second, a new token every second, and one event stream."""

    def __init__(self, gateways: Gateways, rate: float) -> None:
        self._gateways = gateways
        self._rate = rate
        self._http = PlainHTTP()
        self._works: set[asyncio.Task[None]] = set()
        self._requests: set[asyncio.Task[None]] = set()
        self._due: dict[object, float] = {}
        self._lines: list[str] = []
        self._token, self._key = "", ""
        self._followed: str | None = None
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Send until :meth:`stop`."""
        while not self._token:
            await asyncio.sleep(TELL_EVERY)
            await self._ask("token", time.monotonic())
        self._lines.clear()
        print(json.dumps({"service": "load", "address": "none: it only asks"}), flush=True)
        for work in (self._send_all(), self._renew_token(), self._follow_order(), self._write()):
            self._start(work, self._works)
        await self._stop.wait()
        if self._requests:  # what was sent is waited for
            await asyncio.wait(self._requests)
        self._write_lines()

    def stop(self) -> None:
        """Send no more."""
        self._stop.set()

    async def _send_all(self) -> None:
        begin = time.monotonic()
        for number, kind in enumerate(itertools.cycle(MIX)):
            due = begin + number / self._rate
            await asyncio.sleep(due - time.monotonic())
            if self._stop.is_set():
                return
            self._start(self._ask(kind, due, ITEMS[number % len(ITEMS)]), self._requests)

    async def _renew_token(self) -> None:
        while not self._stop.is_set():
            await asyncio.sleep(NEW_TOKEN_EVERY)
            await self._ask("token", time.monotonic())

    async def _ask(self, kind: str, due: float, item: str = "") -> None:
        """One request, and its line."""
        line: dict[str, Any] = {"at": due, "kind": kind, "key": self._key}
        self._due[line_id := object()] = due
        try:
            answer = await self._send(kind, self._gateways.next(), item)
            line["status"] = answer.status
            if answer.status < 300:
                line |= self._read(kind, answer.json())
            else:
                line["error"] = f"{answer.status} {problem(answer)}"
        except RequestFailed as error:
            line["error"] = str(error)
        finally:
            del self._due[line_id]
        line["ms"] = round((time.monotonic() - due) * 1000, 2)
        self._tell(line)

    async def _send(self, kind: str, gateway: str, item: str) -> Answer:
        bearer = {"Authorization": f"Bearer {self._token}"}
        match kind:
            case "catalog":
                return await self._http.request("GET", gateway, f"/catalog/items/{item}")
            case "home":
                return await self._http.request("GET", gateway, "/home/ann", headers=bearer)
            case "order":
                wanted = json.dumps({"item": item}).encode()
                return await self._http.request("POST", gateway, "/orders", headers=bearer, body=wanted)
            case _:
                key = {"X-API-Key": API_KEY}
                return await self._http.request(
                    "POST", gateway, "/token", headers=key, body=b'{"user": "ann"}'
                )

    def _read(self, kind: str, answer: dict[str, Any]) -> dict[str, Any]:
        """What an answer says that is worth telling."""
        match kind:
            case "catalog":
                return {"item": answer["item"], "price": answer["price"]}
            case "home":
                return {"complete": "errors" not in answer}
            case "order":
                self._followed = self._followed or answer["order"]
                return {"state": answer["state"]}
            case _:
                self._token = answer["access_token"]
                self._key = jwt.get_unverified_header(self._token)["kid"]
                return {}

    async def _follow_order(self) -> None:
        """Read the first order's events for ever; where the stream ends, read on from there."""
        last = "0"
        while True:
            await asyncio.sleep(TELL_EVERY)
            if self._followed is None:
                continue
            line: dict[str, Any] = {"at": time.monotonic(), "kind": "stream", "turn": "ended", "events": 0}
            path = f"/orders/{self._followed}/events"
            headers = {"Authorization": f"Bearer {self._token}", "Last-Event-ID": last}
            try:
                async for part in self._http.stream(self._gateways.next(), path, headers):
                    if isinstance(part, int):
                        self._tell({**line, "turn": "opened", "status": part})
                        if part != 200:
                            line["error"] = str(part)
                    elif part.startswith("id:"):
                        last = part.removeprefix("id:").strip()
                        line["events"] += 1
            except RequestFailed as error:
                line["error"] = str(error)
            self._tell({**line, "at": time.monotonic()})

    async def _write(self) -> None:
        while True:
            await asyncio.sleep(TELL_EVERY)
            self._write_lines()

    def _write_lines(self) -> None:
        self._tell({"kind": "told", "at": min(self._due.values(), default=time.monotonic())})
        sys.stdout.write("".join(self._lines))
        sys.stdout.flush()
        self._lines.clear()

    def _tell(self, line: dict[str, Any]) -> None:
        self._lines.append(json.dumps(line, separators=(",", ":")) + "\n")

    def _start(self, work: Coroutine[Any, Any, None], among: set[asyncio.Task[None]]) -> None:
        task = asyncio.create_task(work)
        among.add(task)
        task.add_done_callback(among.discard)
        task.add_done_callback(end_if_broken)


def end_if_broken(task: asyncio.Task[None]) -> None:
    """End the process: the figures of a load that is itself at fault must not be believed."""
    if not task.cancelled() and task.exception() is not None:
        traceback.print_exception(task.exception())
        os._exit(1)


def problem(answer: Answer) -> str:
    """What an answer says went wrong (RFC 9457), or its first words."""
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return answer.body[:100].decode(errors="replace")


@click.command()
@click.option("--registry", required=True, metavar="HOST:PORT", help="The HTTP API of Consul.")
@click.option(
    "--rate", default=200.0, show_default=True, type=click.FloatRange(0.1, 10_000), help="Requests a second."
)
def main(registry: str, rate: float) -> None:
    """Ask the shop's gateway for things."""
    host, _, port = registry.rpartition(":")
    if not (host and port.isdigit()):
        raise click.BadParameter(f"{registry!r} is no address; write HOST:PORT", param_hint="--registry")
    gateways = Gateways(host, int(port))
    threading.Thread(target=gateways.follow, daemon=True).start()
    asyncio.run(send(Load(gateways, rate)))


async def send(load: Load) -> None:
    """Run ``load`` until SIGTERM."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, load.stop)
    await load.run()


if __name__ == "__main__":
    main()
