from __future__ import annotations

import math
import random
from collections.abc import Callable
from enum import Enum
from typing import TypeAlias

from chassis.core.contracts import Registration
from chassis.core.errors import ConfigError
from chassis.core.events import Event
from chassis.core.instances import Status
from chassis.discovery._events import (
    RegistrationConfirmed,
    RegistrationDrifted,
    RegistrationLost,
    RegistrationRefused,
    RegistrationUnreachable,
)

_RETRY = 1.0
# A registration takes this long to reach the catalog from an agent under load; until then its
# absence there means nothing.
_PROPAGATION = 2.0
_STORM_LIMIT = 10.0
_STORM_LIMIT_CAP = 600.0
_INSPECTION = 60.0


def readiness(registration: Registration) -> tuple[Status, str]:
    """What a registration's readiness tells; CRITICAL with the error's name if it raises one."""
    try:
        return registration.readiness()
    except Exception as error:  # noqa: BLE001 - whatever it is, the process cannot say that it is ready
        return Status.CRITICAL, f"the readiness check raised {type(error).__name__}"


def check_registration(registration: Registration) -> None:
    """Refuse what no registry can hold, though some take it without a word.

    :raises ConfigError: naming what cannot be used.
    """

    def refuse(setting: str, problem: str, remedy: str) -> ConfigError:
        return ConfigError(problem, setting=setting, remedy=remedy)

    for name in ("service", "id", "host"):
        if not getattr(registration, name).strip():
            raise refuse(name, f"the registration has no {name}", "give one")
    if registration.scheme not in ("http", "https"):
        raise refuse("scheme", f"{registration.scheme!r} is not known", "give http or https")
    if not 0 < registration.port < 65536:
        raise refuse("port", f"{registration.port} is not a port", "give one from 1 to 65535")
    if registration.weight < 1:
        raise refuse("weight", f"{registration.weight} is no weight", "give at least 1")


_Trouble: TypeAlias = RegistrationLost | RegistrationUnreachable | RegistrationRefused


class Task(Enum):
    """What a registrar does next."""

    REGISTER = "register"
    MAINTAIN = "maintain"
    """Tell the registry whether the instance is under maintenance."""
    BEAT = "beat"
    INSPECT = "inspect"
    """See whether the registry still holds what it was told."""


class RegistrationMachine:
    """What keeps one registration alive: when to register, when to beat, what a loss means.

    Each registration is followed by a heartbeat at once, because a registry keeps the old state
    of a check it knows already. Heartbeats come every third of the TTL, give or take a tenth. A lost
    registration is renewed within a second, but not twice within ten.

    A registration can be lost although its heartbeats are answered: the agent knows it, while
    the catalog that others read does not (its servers came back blank). Whoever sees the
    catalog therefore reports :meth:`absent` and :meth:`present`. Where renewing does not help (the
    token may not read the catalog, say) it is tried ever more rarely.

    Somebody else may change or remove what is registered; that is looked for every minute, and set
    right. Maintenance is another matter: what an operator has set is nobody else's to end. Maintenance
    that the service itself asked for is told again after each registration, since a registry that
    lost the one has lost the other.

    :param subject: the registration's id, for events.
    :param ttl: seconds after which the registry calls a registration without heartbeat critical.
    :param draw: draws from [0, 1).
    """

    def __init__(
        self, subject: str, *, ttl: float, now: float, draw: Callable[[], float] = random.random
    ) -> None:
        self._subject = subject
        self._interval = ttl / 3
        self._draw = draw
        self._register_at = now
        self._maintain_at = math.inf
        self._beat_at = math.inf
        self._inspect_at = math.inf
        self._registered_at = -math.inf
        self._renewed_at = -math.inf
        self._storm_limit = _STORM_LIMIT
        self._because_absent = False
        self._trouble: type[Event] | None = None
        self._drift = ""
        self._maintenance_untold = False
        self._ended = False
        self.confirmed = False
        """Whether the registry has taken the registration and the last heartbeat."""
        self.trouble = ""
        """What keeps it from being confirmed; "" if nothing does."""
        self.maintenance: str | None = None
        """Why the service asked for maintenance; None if it did not."""

    def next(self) -> tuple[Task, float] | None:
        """What to do next, and when; None when it has ended."""
        if self._ended:
            return None
        # In this order where several are due: each later one needs the earlier ones done.
        return min(
            (Task.REGISTER, self._register_at),
            (Task.MAINTAIN, self._maintain_at),
            (Task.BEAT, self._beat_at),
            (Task.INSPECT, self._inspect_at),
            key=lambda due: due[1],
        )

    def registered(self, *, now: float) -> None:
        """The registry took the registration."""
        first = self._registered_at == -math.inf
        if not first:
            self._renewed_at = now
        if self._inspect_at == math.inf:
            # Soon after the start, since what is wrong then (a port that others have too) was
            # mostly just configured.
            self._inspect_at = now + (_PROPAGATION if first else _INSPECTION)
        if self.maintenance is not None:
            self._maintenance_untold = True
        if self._maintenance_untold:
            self._maintain_at = now
        self._registered_at = now
        self._register_at = math.inf
        if self._because_absent:
            self._because_absent = False
            self._storm_limit = min(self._storm_limit * 2, _STORM_LIMIT_CAP)
        self._beat_at = now

    def beaten(self, *, now: float) -> Event | None:
        """The registry took a heartbeat."""
        self._beat_at = now + self._interval * (0.9 + 0.2 * self._draw())
        if self._ended or self.confirmed:
            return None
        if self._because_absent and self._trouble is RegistrationLost:
            # A heartbeat that is answered says nothing about the catalog.
            return None
        self.confirmed = True
        self._trouble = None
        self.trouble = ""
        return RegistrationConfirmed(subject=self._subject, at=now)

    def lost(self, error: str, *, now: float) -> Event | None:
        """The registry does not know what it was to renew."""
        self._beat_at = self._maintain_at = self._inspect_at = math.inf
        self._register_at = max(now + self._draw(), self._renewed_at + _STORM_LIMIT)
        self._because_absent = False
        if self.maintenance is not None:
            # It is gone with the registration, which is nobody's word that it is over.
            self._maintenance_untold = True
        return self._in_trouble(RegistrationLost(subject=self._subject, at=now, error=error))

    def unreachable(self, task: Task, error: str, *, now: float) -> Event | None:
        """The registry did not answer, or said that it cannot work."""
        self._again(task, now + _RETRY)
        return self._in_trouble(RegistrationUnreachable(subject=self._subject, at=now, error=error))

    def refused(self, task: Task, error: str, *, now: float) -> Event | None:
        """The registry will not have it; that may change, so it is tried again at each beat."""
        self._again(task, now + self._interval)
        return self._in_trouble(RegistrationRefused(subject=self._subject, at=now, error=error))

    def maintain(self, reason: str | None, *, now: float) -> None:
        """The service asks for maintenance for ``reason``, or for its end (None)."""
        self.maintenance = reason
        self._maintenance_untold = True
        if self._beat_at < math.inf:
            self._maintain_at = now
        # Else it is not registered now, and the registry is told right after it is.

    def maintained(self) -> None:
        """The registry was told of the maintenance, or of its end."""
        self._maintenance_untold = False
        self._maintain_at = math.inf

    def maintenance_ended(self) -> None:
        """Somebody else ended the maintenance the service had asked for: it is over."""
        if not self._maintenance_untold:
            # Else what ended is an earlier one: the service has asked anew since.
            self.maintenance = None

    def inspected(self, *, now: float) -> None:
        """The registry holds what it was told, or did not say what it holds."""
        self._drift = ""
        self._inspect_at = now + _INSPECTION

    def drifted(self, difference: str, *, now: float) -> Event | None:
        """The registry holds something else than it was told: it is told again.

        :param difference: what is different, for whoever reads the event.
        """
        known, self._drift = self._drift == difference, difference
        self._inspect_at = now + _INSPECTION
        self._register_at = max(now + self._draw(), self._renewed_at + _STORM_LIMIT)
        self._because_absent = False
        if self._ended or known:
            return None
        return RegistrationDrifted(subject=self._subject, at=now, error=difference)

    def absent(self, *, now: float) -> Event | None:
        """The catalog does not show the registration."""
        if self._register_at < math.inf or self._registered_at == -math.inf:
            return None
        self._because_absent = True
        soonest = max(self._registered_at + _PROPAGATION, self._renewed_at + self._storm_limit)
        self._register_at = max(now + self._draw(), soonest)
        if now < soonest:
            return None
        return self._in_trouble(
            RegistrationLost(subject=self._subject, at=now, error="the catalog does not show it")
        )

    def present(self) -> None:
        """The catalog shows the registration."""
        self._storm_limit = _STORM_LIMIT
        if self._because_absent:
            self._because_absent = False
            self._register_at = math.inf

    def end(self) -> None:
        """Register and beat no more: whoever deregisters begins with this, or leaves a ghost."""
        self._ended = True
        self.confirmed = False

    def _again(self, task: Task, at: float) -> None:
        if task is Task.REGISTER:
            self._register_at = at
        elif task is Task.MAINTAIN:
            self._maintain_at = at
        elif task is Task.INSPECT:
            self._inspect_at = at
        else:
            self._beat_at = at

    def _in_trouble(self, event: _Trouble) -> Event | None:
        """The event, if it is news."""
        self.confirmed = False
        self.trouble = event.error
        if self._ended or self._trouble is type(event):
            return None
        self._trouble = type(event)
        return event
