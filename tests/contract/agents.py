"""The two agents the contract is held against, and what the tests need of either."""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import consul

from tests.contract.differences import Difference

_numbers = itertools.count(1)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A raw answer, for what py-consul hides: status, headers, and the body as it came."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def index(self) -> int:
        return int(self.headers["x-consul-index"])

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(kw_only=True)
class Blocked:
    """A blocking query under way in a thread."""

    future: Any
    sent: threading.Event

    def answer(self, within: float = 5.0) -> tuple[Answer, float]:
        """Its answer and the instant it came; fails if it was the wait's end that brought it.

        :param within: seconds; half of what :meth:`Agent.block` waits unless told otherwise.
        """
        asked = time.monotonic()
        answer, at = self.future.result(timeout=30)
        assert at - asked < within, f"the query returned after {at - asked:.1f} s: nothing woke it"
        return answer, at

    @property
    def waiting(self) -> bool:
        return not self.future.done()


class Agent:
    """An agent under test: py-consul as the client, and raw requests beside it."""

    def __init__(self, url: str, version: str | None) -> None:
        parts = urlsplit(url)
        self.host, self.port = str(parts.hostname), int(parts.port or 0)
        self._version = None if version is None else tuple(map(int, version.split(".")))
        self.consul = consul.Consul(host=self.host, port=self.port)
        self._pool = ThreadPoolExecutor()

    def close(self) -> None:
        self._pool.shutdown(wait=False)
        self.consul.http.close()

    @property
    def is_real(self) -> bool:
        return self._version is not None

    def expected(self, difference: Difference) -> Any:
        """What this agent's release answers; the development agent answers as a current one."""
        old = self._version is not None and self._version < difference.since
        return difference.before if old else difference.after

    def name(self, word: str) -> str:
        """A name no other test uses: the real agent is shared."""
        return f"{word}-{next(_numbers)}"

    def request(self, method: str, path: str, body: Any = None) -> Answer:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        try:
            content = body if body is None or isinstance(body, bytes) else json.dumps(body)
            connection.request(method, path, content)
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Answer(status=response.status, headers=headers, body=response.read())
        finally:
            connection.close()

    def get(self, path: str) -> Answer:
        return self.request("GET", path)

    def put(self, path: str, body: Any = None) -> Answer:
        return self.request("PUT", path, body)

    def block(self, path: str, index: int, wait: str = "10s") -> Blocked:
        """Send a blocking query, and return once it has left and had time to arrive."""
        sent = threading.Event()
        separator = "&" if "?" in path else "?"
        target = f"{path}{separator}index={index}&wait={wait}"

        def run() -> tuple[Answer, float]:
            connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
            try:
                connection.request("GET", target)
                sent.set()
                response = connection.getresponse()
                at = time.monotonic()
                headers = {name.lower(): value for name, value in response.getheaders()}
                return Answer(status=response.status, headers=headers, body=response.read()), at
            finally:
                connection.close()

        blocked = Blocked(future=self._pool.submit(run), sent=sent)
        assert sent.wait(5)
        # No agent says when a query has begun to block. Were it late, it would still see the change
        # that follows: the tests measure less then, and do not fail.
        time.sleep(0.05)
        return blocked

    def register(self, name: str, service_id: str | None = None, **body: Any) -> str:
        """Register an instance by a raw body; its id."""
        service_id = service_id or name
        answer = self.put("/v1/agent/service/register", {"Name": name, "ID": service_id, **body})
        assert answer.status == 200, answer.body
        return service_id

    def check_of(self, name: str, check_id: str) -> dict[str, Any]:
        """One check of a service's only instance, as the catalog shows it."""
        (instance,) = self.get(f"/v1/health/service/{name}").json()
        return next(check for check in instance["Checks"] if check["CheckID"] == check_id)
