"""What differs between the two HTTP modules that share the httpx API.

``httpx2`` is the default, ``httpx`` a tested peer. Their classes are distinct and must never be
mixed in one client, so everything that needs a class of theirs is made once per module.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, cast

from chassis.core import (
    ChassisError,
    ConfigError,
    DeadlineExceeded,
    Rejected,
    UpstreamError,
    UpstreamFailure,
)

if TYPE_CHECKING:
    from chassis.client._info import CallInfo

HTTPModuleName: TypeAlias = Literal["httpx2", "httpx"]
ErrorT = TypeVar("ErrorT", bound=BaseException)


class HTTPModule:
    """One of the two modules, its transports, and the errors of ours that are also its own.

    :param name: ``httpx2`` or ``httpx``.
    :raises ConfigError: another name.
    :raises ImportError: the module is not installed.
    """

    def __init__(self, name: HTTPModuleName) -> None:
        if name not in ("httpx2", "httpx"):
            raise ConfigError(
                f"{name!r} is no HTTP module", setting="http", remedy="give 'httpx2' or 'httpx'"
            )
        try:
            self.module: Any = importlib.import_module(name)
        except ModuleNotFoundError as error:
            extra = "chassis-kit[httpx]" if name == "httpx" else "chassis-kit"
            raise ImportError(f"http={name!r} needs the package {name}: pip install {extra!r}") from error
        self.name = name
        module = self.module
        # Only these say that no byte of the request left: every retry of an unsafe method rests on it.
        self.unsent_errors = (module.ConnectError, module.ConnectTimeout, module.PoolTimeout)
        # Sent, or perhaps sent, and no whole head of an answer came back.
        self.broken_errors = (
            module.ReadError,
            module.WriteError,
            module.CloseError,
            module.RemoteProtocolError,
            module.TimeoutException,
        )
        # What the clients raise as an error of ours, too.
        self.told_errors = (Rejected, DeadlineExceeded, *self.unsent_errors, *self.broken_errors)
        # httpx 0.28 keeps a connection for ever when a request is cancelled, or its wait for a
        # connection times out, at the wrong moment (encode/httpcore issue 1093).
        self.pool_is_fragile = name == "httpx"
        self._streams: dict[type[Any], type[Any]] = {}
        self._merged: dict[tuple[type[BaseException], ...], type[BaseException]] = {}

    def edge_error(self, error: ErrorT, request: Any, info: CallInfo | None = None) -> ErrorT:
        """``error`` as an object that is both: an error of ours, and this module's own.

        A ``Rejected`` is its ``ConnectError`` too, a ``DeadlineExceeded`` its ``TimeoutException``; and
        an error of its own that says that the other side failed is an ``UpstreamError`` too. Any other
        comes back as it is.

        :param info: of the call that ended in it; without, the host of ``request`` is the service.
        """
        module = self.module
        kind = type(error)
        if isinstance(error, Rejected):
            bases, own = (kind, module.ConnectError), module.ConnectError
        elif isinstance(error, DeadlineExceeded):
            bases, own = (kind, module.TimeoutException), module.TimeoutException
        else:
            # In this order, so that a handler somebody has for the module's own errors comes first.
            bases, own = (kind, UpstreamError), UpstreamError
            if not isinstance(error, self.unsent_errors + self.broken_errors):
                return error
        if isinstance(error, own):
            return error
        state = _state_of(error)
        if own is UpstreamError:
            state["service"] = request.url.host if info is None else info.service
            state["instance"] = None if info is None else info.instance
            state["attempts"] = 1 if info is None else info.attempts
            state["failure"] = self._failure(error)
        else:
            state["_request"] = request
        new = self.merge(bases, error.args, state)
        return cast(ErrorT, new.with_traceback(error.__traceback__))

    def merge(
        self, bases: tuple[type[BaseException], ...], args: tuple[Any, ...], state: Mapping[str, Any]
    ) -> BaseException:
        """An error of all of ``bases`` at once, called as the first is."""
        merged = self._merged.get(bases)
        if merged is None:

            def reduce(error: BaseException) -> tuple[Any, ...]:
                return _restored, (self.name, bases, error.args, _state_of(error))

            name, module = bases[0].__name__, bases[0].__module__
            made: Any = type(name, bases, {"__module__": module, "__reduce__": reduce})
            merged = self._merged.setdefault(bases, made)
        # No constructor fits all bases, and the state is all there already.
        new: BaseException = merged.__new__(merged)
        new.args = args
        for name, value in state.items():
            setattr(new, name, value)
        return new

    def _failure(self, error: BaseException) -> UpstreamFailure:
        if isinstance(error, self.unsent_errors):
            return "unreachable"
        return "late" if isinstance(error, self.module.TimeoutException) else "broken"

    def stream_class(self, ours: type[Any]) -> type[Any]:
        """``ours``, which iterates over bytes, as a stream of this module: it asserts its own base classes."""
        made = self._streams.get(ours)
        if made is None:
            bases = [ours]
            if hasattr(ours, "__aiter__"):
                bases.append(self.module.AsyncByteStream)
            if hasattr(ours, "__iter__"):
                bases.append(self.module.SyncByteStream)
            made = self._streams.setdefault(ours, type(ours.__name__, tuple(bases), {}))
        return made


@functools.cache
def http_module(name: HTTPModuleName) -> HTTPModule:
    """The :class:`HTTPModule` of this name; made once per process."""
    return HTTPModule(name)


def module_of(request: Any) -> HTTPModule:
    """The module a ``Request`` object belongs to."""
    return http_module(sys.modules[type(request).__module__.partition(".")[0]].__name__)


def edge_error(error: ErrorT, request: Any) -> ErrorT:
    """``error`` as the clients raise it for ``request``: ours, and the request's HTTP module's, in one.

    A ``Rejected`` is its ``ConnectError`` as well, a ``DeadlineExceeded`` its ``TimeoutException``; an
    error of its own that says that the other side failed is an ``UpstreamError`` as well. Any other
    error, and one that is both already, comes back as it is.
    """
    return module_of(request).edge_error(error, request)


def _state_of(error: BaseException) -> dict[str, Any]:
    return error.state_of() if isinstance(error, ChassisError) else dict(error.__dict__)


def _restored(
    module: HTTPModuleName,
    bases: tuple[type[BaseException], ...],
    args: tuple[Any, ...],
    state: Mapping[str, Any],
) -> BaseException:
    """A merged error as it was: its class is made at run time, so it cannot be found by name."""
    return http_module(module).merge(bases, args, state)
