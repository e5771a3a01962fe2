from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from chassis.background import background
from chassis.devagent import DevAgent, serve

_START_AND_STOP = 10.0


@dataclass(frozen=True, slots=True)
class RunningAgent:
    """A development agent that serves in this process.

    :param url: where, e.g. ``http://127.0.0.1:40123``.
    :param agent: what it holds.
    """

    url: str
    agent: DevAgent

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that lead a service to it: ``Chassis("shop", environment=agent.environment)``."""
        return {"CONSUL_HTTP_ADDR": self.url}


@contextmanager
def dev_agent() -> Iterator[RunningAgent]:
    """A blank development agent that speaks Consul's HTTP API on a free port of 127.0.0.1.

    It runs in the background thread of this process, and is gone after the block.

    :raises ConfigError: nothing can listen there.
    """
    agent = DevAgent()
    ready: concurrent.futures.Future[str] = concurrent.futures.Future()
    end: concurrent.futures.Future[None] = concurrent.futures.Future()

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        end.add_done_callback(lambda _: loop.call_soon_threadsafe(stop.set))
        try:
            await serve("127.0.0.1", 0, agent=agent, ready=ready.set_result, stop=stop)
        except BaseException as error:
            if not ready.done():
                ready.set_exception(error)
            raise

    job = background.start(main, name="testing:dev-agent")
    url = ready.result(_START_AND_STOP)
    try:
        yield RunningAgent(url, agent)
    finally:
        end.set_result(None)
        job.result(_START_AND_STOP)
