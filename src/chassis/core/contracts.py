"""The contracts between layers: each of one to three methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from chassis.core.instances import Instance, Snapshot, Status
from chassis.core.secrets import Secret, SecretVersion

_RecordT_contra = TypeVar("_RecordT_contra", contravariant=True)


class Subscription(Protocol):
    """A running interest in something that changes."""

    def close(self) -> None:
        """End it; no call of the listener begins afterwards. Closing twice does nothing."""


class ServiceSubscription(Subscription, Protocol):
    """A running interest in one service."""

    def doubt(self) -> None:
        """Tell the source that none of the instances it told of takes connections any more.

        A source that holds back bad news, such as an empty answer it does not believe, may believe
        it now. Any thread; never blocks.
        """


class Discovery(Protocol):
    """Knows where services are."""

    def subscribe(self, service: str, listener: Callable[[Snapshot], None]) -> ServiceSubscription:
        """Tell ``listener`` of the newest snapshot, at once if one is known, then of each change.

        May be called from any thread, and the listener may be called from any thread; it must
        not block. Snapshots of one subscription arrive in order.
        """
        ...

    def describe(self) -> Mapping[str, Any]:
        """Per watched service: source, age in seconds, instances, the reason when empty."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What a registrar is told of one listening address.

    :param readiness: asked at each heartbeat, from the background thread; returns the status and
        a short note. It must not block.
    """

    service: str
    id: str
    host: str
    port: int
    scheme: str = "http"
    zone: str = ""
    tags: tuple[str, ...] = ()
    meta: Mapping[str, str] = field(default_factory=dict, hash=False)
    weight: int = 1
    readiness: Callable[[], tuple[Status, str]] = field(
        default=lambda: (Status.PASSING, "ready"), hash=False, compare=False
    )


class Registered(Protocol):
    """One registration that is being kept alive."""

    @property
    def confirmed(self) -> bool:
        """Whether the registry has taken the registration and the last heartbeat went through."""
        ...

    def maintenance(self, reason: str | None) -> None:
        """Ask that nobody be sent here for ``reason``, or end that with None.

        Any thread; returns at once. The registry is told in the background, and told again when it
        lost the registration. Maintenance that an operator set is not ended by it.
        """
        ...

    def describe(self) -> Mapping[str, Any]:
        """Id, whether it is confirmed, what is wrong if not, the last heartbeat, maintenance."""
        ...

    async def deregister(self) -> None:
        """Stop the heartbeat, then remove the registration. Never raises; takes at most 3 s."""

    async def abandon(self) -> None:
        """Stop the heartbeat and leave the registration to the other processes of this address."""


class Registrar(Protocol):
    """Announces this process to a registry and keeps the announcement alive."""

    async def register(self, registration: Registration) -> Registered:
        """Announce ``registration``.

        Returns at once when the registry does not answer: it is retried in the background for as
        long as the process lives. Runs on the background loop.

        :raises ConfigError: the registration itself cannot be accepted (bad name, port or meta).
        """
        ...


class Candidate(Protocol):
    """What a balancer may know of an instance it can choose."""

    @property
    def instance(self) -> Instance:
        """Its data."""
        ...

    @property
    def in_flight(self) -> int:
        """Calls of this process that it has not finished."""
        ...

    @property
    def share(self) -> float:
        """How much of its full traffic it should get now: below 1 while it warms up, never 0."""
        ...

    @property
    def weight(self) -> float:
        """Its instance's weight, times its share."""
        ...

    def latency_at(self, now: float) -> float:
        """What its latency is estimated at, in seconds; 0 while nothing is known."""
        ...


_CandidateT = TypeVar("_CandidateT", bound=Candidate)


class Balancer(Protocol):
    """Chooses among candidates; synchronous, and called from any thread with no lock held."""

    def choose(
        self,
        candidates: Sequence[_CandidateT],
        fit: Callable[[_CandidateT], bool],
        *,
        key: str | None,
        now: float,
    ) -> _CandidateT | None:
        """One of ``candidates`` for which ``fit`` holds; None if there is none.

        :param candidates: never empty, ordered by instance id. It is the same object for as long as
            the same instances with the same weights can be chosen, and may be remembered.
        :param fit: whether this call may go there; best asked of few.
        :param key: what the caller gave to tell calls apart.
        :param now: seconds of the clock that latencies are measured by.
        """
        ...


class Upstreams(Protocol):
    """Sends a request to a service by name, through discovery, balancing and every guard."""

    async def send(self, service: str, request: Any) -> Any:
        """Send an httpx (or httpx2) ``Request`` to some instance of ``service``.

        :returns: that module's ``Response``, its body unread; the caller closes it.
        :raises Rejected: no instance could be asked.
        :raises DeadlineExceeded: the deadline of the whole call passed.
        :raises UpstreamError: those that were asked gave no whole answer; while its body is read, too.
        """
        ...


class SecretResolver(Protocol):
    """Reads secrets of one kind of store."""

    scheme: str
    """What references to this store begin with, without the colon: ``file``, ``vault``."""
    poll: float
    """Seconds after which a secret in use should be read again to see whether it changed."""
    remote: bool
    """Whether it asks another machine, rather than this one's files."""

    async def read(self, path: str) -> SecretVersion:
        """What the store holds at ``path`` now. Runs on the background loop.

        :raises SecretError: it cannot be had; ``permanent`` says whether asking again may help.
        """
        ...

    async def aclose(self) -> None:
        """Give back what it holds: connections, a token of its own. Runs on the background loop."""


class Secrets(Protocol):
    """Resolves references such as ``vault:secret/payments#api_key`` and follows their rotation."""

    def refers(self, text: str) -> bool:
        """Whether ``text`` is written as a reference, resolvable or not."""
        ...

    def remote(self, reference: str) -> bool:
        """Whether it names a store on another machine, rather than a file of this one."""
        ...

    async def get(self, reference: str) -> Secret:
        """The secret, from memory if it is being followed. Runs on the background loop.

        :raises SecretError: it cannot be had and was never had before.
        :raises ConfigError: the reference cannot be understood.
        """
        ...

    def subscribe(self, reference: str, listener: Callable[[], None]) -> Subscription:
        """Follow the secret, and call ``listener`` on the background loop when it has changed."""
        ...


class Sink(Protocol[_RecordT_contra]):
    """Takes telemetry and delivers it, or counts by its reason what it did not."""

    def accept(self, record: _RecordT_contra) -> bool:
        """Take ``record`` for delivery; False if it was refused, and counted.

        May be called from any thread, from a signal handler and from a finaliser; it never blocks
        and never raises.
        """
        ...

    def flush(self, timeout: float) -> bool:
        """Wait, for at most ``timeout`` seconds, until what was accepted so far is settled.

        :returns: whether all of it was delivered.
        """
        ...

    def close(self, timeout: float) -> bool:
        """Flush, then refuse everything; what is left is counted as dropped. Twice does nothing.

        :returns: whether everything accepted was delivered.
        """
        ...


__all__ = [
    "Balancer",
    "Candidate",
    "Discovery",
    "Instance",
    "Registered",
    "Registrar",
    "Registration",
    "SecretResolver",
    "Secrets",
    "ServiceSubscription",
    "Sink",
    "Subscription",
    "Upstreams",
]
