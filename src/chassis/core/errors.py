"""The exception tree.

Names say what the caller can do::

    ChassisError
    ├── Rejected            refused before anything was sent: safe to try elsewhere or later
    │   ├── CircuitOpen     the breaker of this dependency or instance is open
    │   ├── BulkheadFull    as many calls as allowed are in flight
    │   ├── RateLimited     as many calls as allowed were made lately
    │   ├── Overloaded      this process sheds load to serve the rest in time
    │   └── NoInstance      discovery knows no instance of the service (``reason`` says why)
    ├── DeadlineExceeded    the whole call's time is spent; it may have been sent (``conclusive``)
    ├── UpstreamError       a service that was called could not be reached, was late or broke off (``failure``)
    ├── ConfigError         a setting is unknown, ill-typed or impossible (also a ValueError)
    └── DiscoveryError      a registry answered something that cannot be used

At the httpx edge each of the first three is the HTTP module's own error too (a ``ConnectError``, a
``TimeoutException``, whatever the call ended in), so existing ``except`` clauses hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from chassis.core.instances import Instance

UpstreamFailure: TypeAlias = Literal["unreachable", "late", "broken"]
"""How a call to another service failed. ``unreachable``: no connection could be had, so nothing was
sent. ``late``: no answer came in time. ``broken``: the connection or the answer broke off."""


class ChassisError(Exception):
    """Base of everything chassis raises on its own account."""

    def state_of(self) -> dict[str, Any]:
        """All that was set on it, by name: what a copy must be given besides ``args``."""
        slots = [name for kind in type(self).__mro__ for name in kind.__dict__.get("__slots__", ())]
        return {**{name: getattr(self, name) for name in slots if hasattr(self, name)}, **self.__dict__}


class Rejected(ChassisError):
    """The call was refused before it was sent.

    :param message: what was refused and why.
    :param retry_after: seconds after which a new try makes sense; None if nobody can know.
    """

    # A slot costs a third of an entry in a dictionary that is made for the purpose.
    __slots__ = ("retry_after",)

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[Any, ...]:
        # Not by the constructor, which may ask for more than ``args``.
        return _restored, (type(self), self.args, self.state_of())


def _restored(kind: type[ChassisError], args: tuple[Any, ...], state: dict[str, Any]) -> ChassisError:
    error = kind.__new__(kind, *args)
    for name, value in state.items():
        setattr(error, name, value)
    return error


class CircuitOpen(Rejected):
    """The circuit breaker ``name`` does not admit calls now.

    :param name: the breaker's name.
    :param retry_after: seconds until it admits a probe; None if an operator holds it open.
    :param last_failure: type and message of the failure that counted last, or None.
    :param state: what it is: ``open``, ``half_open`` or ``forced_open``.
    """

    __slots__ = ("last_failure", "name", "state")

    def __init__(
        self,
        name: str,
        *,
        retry_after: float | None = None,
        last_failure: str | None = None,
        state: str = "open",
    ) -> None:
        # The message is made in __str__: a rejection must stay cheap, and most are never printed.
        super().__init__(name, retry_after=retry_after)
        self.name = name
        self.last_failure = last_failure
        self.state = state

    def __str__(self) -> str:
        if self.state == "forced_open":
            return f"circuit breaker {self.name!r} is held open by an operator"
        when = "" if self.retry_after is None else f"; it admits a probe in {self.retry_after:.3g} s"
        why = f" (last failure: {self.last_failure})" if self.last_failure else ""
        return f"circuit breaker {self.name!r} is open{when}{why}"


class BulkheadFull(Rejected):
    """``limit`` calls are in flight through the bulkhead ``name`` and the wait was up.

    :param name: the bulkhead's name.
    :param limit: how many calls it lets in at once.
    :param retry_after: seconds until a place may be hoped for; None if nobody can know.
    """

    def __init__(self, name: str, *, limit: int, retry_after: float | None = None) -> None:
        super().__init__(name, retry_after=retry_after)
        self.name = name
        self.limit = limit

    def __str__(self) -> str:
        when = "" if self.retry_after is None else f"; a place may be free in {self.retry_after:.3g} s"
        return f"bulkhead {self.name!r} is full, with {self.limit} in flight{when}"


class RateLimited(Rejected):
    """The rate limit ``name`` admits no further call now.

    :param name: the rate limit's name.
    :param retry_after: seconds until it admits one.
    :param quota: calls it admits in ``window`` seconds in the long run; None if nobody is to know.
    :param window: whole seconds; given with ``quota``.
    """

    def __init__(
        self,
        name: str,
        *,
        retry_after: float | None = None,
        quota: int | None = None,
        window: int | None = None,
    ) -> None:
        super().__init__(name, retry_after=retry_after)
        self.name = name
        self.quota = quota
        self.window = window

    def __str__(self) -> str:
        when = "" if self.retry_after is None else f"; the next call is admitted in {self.retry_after:.3g} s"
        return f"rate limit {self.name!r} is reached{when}"


class Overloaded(Rejected):
    """This process has more work than it can do in time, and refuses some to do the rest.

    :param name: what sheds the load.
    :param retry_after: seconds after which a new try makes sense.
    """

    def __init__(self, name: str, *, retry_after: float | None = None) -> None:
        super().__init__(name, retry_after=retry_after)
        self.name = name

    def __str__(self) -> str:
        when = "" if self.retry_after is None else f"; try again in {self.retry_after:.3g} s"
        return f"{self.name!r} is overloaded and sheds load{when}"


class NoInstance(Rejected):
    """Discovery knows no instance of ``service`` that may be called.

    :param service: the service's name.
    :param reason: a :class:`~chassis.core.instances.Reason` value's text, or a sentence.
    :param retry_after: seconds after which a new try makes sense; None if nobody can know.
    """

    def __init__(self, service: str, *, reason: str, retry_after: float | None = None) -> None:
        super().__init__(
            f"no instance of service {service!r}: {reason}; `chassis doctor` tells what to do",
            retry_after=retry_after,
        )
        self.service = service
        self.reason = reason


class DeadlineExceeded(ChassisError, TimeoutError):
    """The deadline of the whole call passed.

    It may come in the middle of a call, so it does not tell whether the work was done.

    :param message: what was not done in time.
    :param conclusive: whether it says something of what was called. False if nothing was begun, as the
        time was spent already; or if the caller's deadline left it less than half of the time it is
        given as a rule. Then :func:`~chassis.core.outcomes.classify_error` ignores it, or impatient
        callers would open the breaker for all.
    """

    def __init__(self, message: str = "", *, conclusive: bool = True) -> None:
        super().__init__(message)
        self.conclusive = conclusive


class UpstreamError(ChassisError):
    """A service was called and gave no whole answer, with all the attempts the call was worth.

    The client raises it as the HTTP module's own error as well: the one its last attempt ended in.

    :param message: what that one says.
    :param service: the service that was called.
    :param failure: how it failed. Unless it is ``unreachable``, the work may have been done.
    :param instance: the instance that was tried last.
    :param attempts: how many attempts were made.
    """

    def __init__(
        self,
        message: str,
        *,
        service: str,
        failure: UpstreamFailure,
        instance: Instance | None = None,
        attempts: int = 1,
    ) -> None:
        super().__init__(message)
        self.service = service
        self.failure: UpstreamFailure = failure
        self.instance = instance
        self.attempts = attempts

    def __str__(self) -> str:
        where = "" if self.instance is None else f" at {self.instance.id} ({self.instance.address})"
        what = super().__str__() or f"the call ended in {type(self).__name__}"
        return f"{self.service}{where}: {what}"

    def __reduce__(self) -> tuple[Any, ...]:
        # Not by the constructor, which asks for more than ``args``.
        return _restored, (type(self), self.args, self.state_of())


class ConfigError(ChassisError, ValueError):
    """A setting cannot be used.

    :param message: what is wrong, with the value (never a secret's).
    :param setting: the setting's name as its reader would write it, e.g. ``failure_rate``.
    :param origin: where the value came from, e.g. ``environment CHASSIS_TIMEOUT``.
    :param remedy: what to write instead.
    """

    def __init__(
        self,
        message: str,
        *,
        setting: str | None = None,
        origin: str | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.setting = setting
        self.origin = origin
        self.remedy = remedy

    def __str__(self) -> str:
        setting = f"{self.setting}: " if self.setting else ""
        origin = f" (from {self.origin})" if self.origin else ""
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{setting}{self.message}{origin}{remedy}"


class DiscoveryError(ChassisError):
    """A registry or name server answered something that cannot be used."""
