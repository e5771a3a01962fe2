from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from chassis.adapters.consul._api import ConsulAPI
from chassis.adapters.consul._hub import hub
from chassis.adapters.consul._protocol import ConsulAnswer, KVEntry
from chassis.adapters.consul._watch import observe
from chassis.config import Absent, Found, Reading, Unreachable
from chassis.core.options import Seconds, check_seconds


class ConsulKV:
    """One key of Consul's KV store as a document of settings, watched by blocking queries.

    One key, not a tree of them: whoever writes it changes all settings in it at once. A change is
    seen in milliseconds. To take settings back, write the document without them: where the key is
    deleted, or a token loses its rights, or a Consul comes back blank, the last good document stays.

    :param key: ``config/orders/data``.
    :param shared: whether other services read it too, so that unknown names are theirs.
    :param wait: seconds a query waits for a change.
    :param max_stale: seconds since the answering server last heard from its leader, beyond which
        its answer is not believed.
    """

    remote = True

    def __init__(
        self,
        api: ConsulAPI,
        key: str,
        *,
        shared: bool = False,
        wait: Seconds = 55.0,
        max_stale: Seconds = 30.0,
    ) -> None:
        check_seconds("wait", wait)
        check_seconds("max_stale", max_stale)
        self.name = f"consul kv {key}"
        self.shared = shared
        self._api = api
        self._key = key
        self._wait = wait
        self._max_stale = max_stale

    async def readings(self) -> AsyncIterator[Reading]:
        """Yield the document now and after each change; errors too, and then it tries again."""

        async def query(index: int | None) -> ConsulAnswer[tuple[KVEntry, ...]]:
            return await self._api.kv_get(self._key, index=index, wait=self._wait)

        # It holds a connection like any watch, and cannot do without.
        slots = hub.agent(self._api.options).slots
        slots.reserve()
        try:
            async with contextlib.aclosing(observe(query, max_stale=self._max_stale)) as observations:
                async for each in observations:
                    if each.answer is None:
                        yield Unreachable(str(each.error))
                    elif each.answer.value:
                        yield Found(each.answer.value[0].value)
                    else:
                        yield Absent()
        finally:
            slots.give_back()
