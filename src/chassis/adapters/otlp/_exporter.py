"""One request to the receiver, and what its answer means."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

from chassis.adapters.otlp._options import Target
from chassis.adapters.otlp._outcome import Delivered, Payload, Refused, TryAgain
from chassis.adapters.otlp._retry import retry_after

if TYPE_CHECKING:
    import httpx2
    from google.protobuf.message import Message

RecordT = TypeVar("RecordT")

_RETRYABLE = frozenset({429, 502, 503, 504})
"""Whatever else is not a success will not become one (OTLP specification, "Failures")."""


class OtlpExporter(Generic[RecordT]):
    """Encodes batches and posts them; used by one thread at a time.

    :param encode: makes a request message of records, and says how many it holds.
    :param answer: the message class of the receiver's answer.
    :param rejected: the field of its ``partial_success`` that counts what was rejected.
    """

    def __init__(
        self,
        target: Target,
        encode: Callable[[Sequence[RecordT]], tuple[Message, int]],
        answer: Callable[[], Message],
        rejected: str,
    ) -> None:
        self._target = target
        self._encode = encode
        self._answer = answer
        self._rejected = rejected
        self._client: httpx2.Client | None = None
        kind = "application/json" if target.json else "application/x-protobuf"
        self._headers = {**target.headers, "Content-Type": kind, "User-Agent": "chassis-otlp"}
        if target.gzip:
            self._headers["Content-Encoding"] = "gzip"

    @property
    def receiver(self) -> str:
        """The receiver's URL, without credentials."""
        return self._target.shown

    def prepare(self, batch: Sequence[RecordT]) -> Payload:
        """Encode ``batch`` once, however often it will be sent."""
        message, count = self._encode(batch)
        if self._target.json:
            from chassis.adapters.otlp._encode import as_json

            body = json.dumps(as_json(message), separators=(",", ":")).encode()
        else:
            body = message.SerializeToString()
        # Level 1: half the time of the default for nearly the same size.
        return Payload(gzip.compress(body, 1) if self._target.gzip else body, count)

    def send(self, payload: Payload, limit: float) -> Delivered | TryAgain | Refused:
        """Post it once.

        :param limit: seconds it may take, if that is less than the timeout configured.
        """
        import httpx2

        try:
            with _untraced():
                response = self._connected().post(
                    self._target.url, content=payload.body, timeout=min(self._target.timeout, limit)
                )
        except httpx2.TransportError as error:
            return TryAgain(type(error).__name__)
        if response.is_success:
            return Delivered(self._rejected_by(response))
        reason = f"http_{response.status_code}"
        if response.status_code in _RETRYABLE:
            return TryAgain(reason, retry_after(response.headers.get("Retry-After")))
        return Refused(reason)

    def forget(self) -> None:
        """Leave the connections to the parent process, whose they are."""
        self._client = None

    def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _connected(self) -> httpx2.Client:
        if self._client is None:
            import ssl

            import httpx2

            # Loading a trust store costs tens of milliseconds that plain HTTP need not pay.
            tls = self._target.tls or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self._client = httpx2.Client(verify=tls, trust_env=False, headers=self._headers)
        return self._client

    def _rejected_by(self, response: httpx2.Response) -> int:
        """How many records a partial success left out; an answer that cannot be read rejects none."""
        try:
            if "json" in response.headers.get("Content-Type", ""):
                partial = json.loads(response.content or b"{}").get("partialSuccess") or {}
                name = self._rejected.split("_")
                return int(partial.get(name[0] + "".join(map(str.title, name[1:])), 0))
            message = self._answer()
            message.ParseFromString(response.content)
            return int(getattr(getattr(message, "partial_success"), self._rejected))  # noqa: B009 - two message classes
        except Exception:  # noqa: BLE001 - what the status said holds
            return 0


@contextmanager
def _untraced() -> Iterator[None]:
    """An instrumentation of the HTTP client, if the application installed one, leaves us alone.

    Otherwise each export would make a span, which would have to be exported.
    """
    from opentelemetry import context

    token = context.attach(context.set_value(context._SUPPRESS_HTTP_INSTRUMENTATION_KEY, True))
    try:
        yield
    finally:
        context.detach(token)
