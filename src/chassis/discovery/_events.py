from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from chassis.core.events import Event, Level


@dataclass(frozen=True, kw_only=True)
class InstancesChanged(Event):
    """The instances of the service ``subject`` are others than before, or stand otherwise.

    :param instances: how many there are now.
    :param fit: how many of them are passing or warning.
    :param before: how many there were.
    """

    name: ClassVar[str] = "discovery.changed"
    source: str
    instances: int
    fit: int
    before: int


@dataclass(frozen=True, kw_only=True)
class DiscoveryStale(Event):
    """The source no longer answers for ``subject``; what was known last is kept.

    :param instances: how many are kept; 0 if nothing was known.
    """

    name: ClassVar[str] = "discovery.stale"
    level: ClassVar[Level] = "warning"
    source: str
    instances: int
    error: str


@dataclass(frozen=True, kw_only=True)
class DiscoveryExpired(Event):
    """``subject`` has been stale for longer than was set for it; its instances are still used.

    :param instances: how many are kept.
    """

    name: ClassVar[str] = "discovery.expired"
    level: ClassVar[Level] = "error"
    source: str
    instances: int
    stale_for: float


@dataclass(frozen=True, kw_only=True)
class DiscoveryRecovered(Event):
    """The source answers for ``subject`` again."""

    name: ClassVar[str] = "discovery.recovered"
    source: str
    stale_for: float


@dataclass(frozen=True, kw_only=True)
class EmptyAnswerHeld(Event):
    """The source says that ``subject`` has no instance any more, and that is not believed yet.

    :param instances: how many are kept meanwhile.
    :param grace: seconds after which it is believed.
    """

    name: ClassVar[str] = "discovery.empty_held"
    level: ClassVar[Level] = "warning"
    source: str
    instances: int
    grace: float


@dataclass(frozen=True, kw_only=True)
class EmptyAnswerAccepted(Event):
    """The source kept saying that ``subject`` has no instance: now it has none."""

    name: ClassVar[str] = "discovery.empty_accepted"
    level: ClassVar[Level] = "warning"
    source: str
    held_for: float


@dataclass(frozen=True, kw_only=True)
class InstancesHeld(Event):
    """The source has lost its past and does not name all instances of ``subject`` again yet: the others are kept.

    :param instances: how many are kept beside those it names.
    :param grace: seconds, from the loss on, after which they are given up unless it names them.
    """

    name: ClassVar[str] = "discovery.instances_held"
    level: ClassVar[Level] = "warning"

    source: str
    instances: int
    grace: float


@dataclass(frozen=True, kw_only=True)
class SnapshotRestored(Event):
    """The registry is silent, so ``subject`` begins with the instances written down before this process.

    :param instances: how many.
    :param age: seconds since the registry told of them.
    """

    name: ClassVar[str] = "discovery.restored"
    level: ClassVar[Level] = "warning"
    instances: int
    age: float


@dataclass(frozen=True, kw_only=True)
class SnapshotFileUnusable(Event):
    """The file that keeps the instances of ``subject`` over a restart cannot be used: it is left aside."""

    name: ClassVar[str] = "discovery.file_unusable"
    level: ClassVar[Level] = "warning"
    file: str
    error: str


@dataclass(frozen=True, kw_only=True)
class WatchLimitNear(Event):
    """Most of the blocking queries allowed at the registry ``subject`` are open.

    Services beyond the limit are asked when something changes, at most once a second.

    :param open: how many are.
    :param limit: how many may be.
    """

    name: ClassVar[str] = "discovery.watch_limit_near"
    level: ClassVar[Level] = "warning"
    open: int
    limit: int


@dataclass(frozen=True, kw_only=True)
class RegistryCrowded(Event):
    """The registry ``subject`` refuses this client further connections.

    Half as many blocking queries are held open, and one more every ten seconds without a refusal; the
    services they watched are asked without holding any. Told once a minute.

    :param limit: how many remain.
    """

    name: ClassVar[str] = "discovery.crowded"
    level: ClassVar[Level] = "warning"
    limit: int
    error: str


@dataclass(frozen=True, kw_only=True)
class EntriesSkipped(Event):
    """Some of the source's entries for ``subject`` cannot be used and are left out.

    :param skipped: how many.
    :param example: what is wrong with one of them.
    """

    name: ClassVar[str] = "discovery.entries_skipped"
    level: ClassVar[Level] = "warning"
    source: str
    skipped: int
    example: str


@dataclass(frozen=True, kw_only=True)
class WatchFailed(Event):
    """A watcher or a listener of ``subject`` raised an error of its own: a defect; it goes on."""

    name: ClassVar[str] = "discovery.failed"
    level: ClassVar[Level] = "error"
    error: str


@dataclass(frozen=True, kw_only=True)
class RegistrationConfirmed(Event):
    """The registry holds the registration ``subject`` and took its heartbeat."""

    name: ClassVar[str] = "registration.confirmed"


@dataclass(frozen=True, kw_only=True)
class RegistrationLost(Event):
    """The registry has lost the registration ``subject``: it is registered again."""

    name: ClassVar[str] = "registration.lost"
    level: ClassVar[Level] = "warning"
    error: str


@dataclass(frozen=True, kw_only=True)
class RegistrationUnreachable(Event):
    """The registry does not answer for ``subject``: registration or heartbeat is tried again."""

    name: ClassVar[str] = "registration.unreachable"
    level: ClassVar[Level] = "warning"
    error: str


@dataclass(frozen=True, kw_only=True)
class RegistrationRefused(Event):
    """The registry refuses ``subject``: mostly its token lacks ``service:write``."""

    name: ClassVar[str] = "registration.refused"
    level: ClassVar[Level] = "error"
    error: str


@dataclass(frozen=True, kw_only=True)
class RegistrationDrifted(Event):
    """The registry holds something else than ``subject`` told it: it is registered again.

    :param error: what is different.
    """

    name: ClassVar[str] = "registration.drifted"
    level: ClassVar[Level] = "warning"
    error: str


@dataclass(frozen=True, kw_only=True)
class AddressShared(Event):
    """Others are registered at the address of ``subject``: callers of one may reach another.

    :param others: their ids.
    """

    name: ClassVar[str] = "registration.address_shared"
    level: ClassVar[Level] = "warning"
    others: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class MaintenanceBegun(Event):
    """The registration ``subject`` is under maintenance: nobody is sent to it.

    :param operator: whether somebody else than the service asked for it. Then it is theirs to end.
    """

    name: ClassVar[str] = "registration.maintenance_begun"
    level: ClassVar[Level] = "warning"
    reason: str
    operator: bool


@dataclass(frozen=True, kw_only=True)
class MaintenanceEnded(Event):
    """The registration ``subject`` is under maintenance no more."""

    name: ClassVar[str] = "registration.maintenance_ended"


@dataclass(frozen=True, kw_only=True)
class Deregistered(Event):
    """The registration ``subject`` has been ended.

    :param error: why the registry may still hold it; "" if it does not.
    """

    name: ClassVar[str] = "registration.ended"
    error: str = ""
