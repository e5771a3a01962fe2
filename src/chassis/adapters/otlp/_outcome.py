"""What passes between the shipper and an exporter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

RecordT_contra = TypeVar("RecordT_contra", contravariant=True)


@dataclass(frozen=True, slots=True)
class Payload:
    """A batch as it is sent; ``count`` records of it could be encoded."""

    body: bytes
    count: int


@dataclass(frozen=True, slots=True)
class Delivered:
    """The receiver has it, except for ``rejected`` records, which must not be sent again."""

    rejected: int = 0


@dataclass(frozen=True, slots=True)
class TryAgain:
    """It may be taken later; not before ``after`` seconds, if the receiver named a time."""

    reason: str
    after: float | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """It will never be taken."""

    reason: str


class Exporter(Protocol[RecordT_contra]):
    """What a shipper needs of the receiver's protocol; used by one thread at a time."""

    @property
    def receiver(self) -> str:
        """Its address, to be shown."""
        ...

    def prepare(self, batch: Sequence[RecordT_contra]) -> Payload:
        """Encode a batch, once, however often it will be sent."""
        ...

    def send(self, payload: Payload, limit: float) -> Delivered | TryAgain | Refused:
        """Send it once, within ``limit`` seconds."""
        ...

    def forget(self) -> None:
        """Leave the connections to the parent process, whose they are."""

    def close(self) -> None:
        """Close the connections; the next ``send`` opens new ones."""
