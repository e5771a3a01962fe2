"""What differs between the two HTTP modules that share the httpx API.

``httpx2`` is the default, ``httpx`` a tested peer. Their classes are distinct and must never be
mixed in one client, so everything that needs a class of theirs is made once per module.
"""

from __future__ import annotations

import functools
import importlib
import sys
from typing import Any, Literal, TypeAlias, cast

from chassis.core import ChassisError, ConfigError, DeadlineExceeded, Rejected

HTTPModuleName: TypeAlias = Literal["httpx2", "httpx"]


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
        # httpx 0.28 keeps a connection for ever when a request is cancelled, or its wait for a
        # connection times out, at the wrong moment (encode/httpcore issue 1093).
        self.pool_is_fragile = name == "httpx"
        self._errors: dict[type[ChassisError], type[ChassisError]] = {}

    def edge_error(self, error: ChassisError, request: Any) -> ChassisError:
        """``error`` as an object that is also this module's own error.

        A ``Rejected`` is its ``ConnectError`` too, a ``DeadlineExceeded`` its ``TimeoutException``.
        """
        own = (
            self.module.TimeoutException if isinstance(error, DeadlineExceeded) else self.module.ConnectError
        )
        kind = type(error)
        if isinstance(error, own) or not isinstance(error, Rejected | DeadlineExceeded):
            return error
        merged = self._errors.get(kind)
        if merged is None:
            merged = self._errors[kind] = type(kind.__name__, (kind, own), {"__module__": kind.__module__})
        # Neither constructor fits both bases, and the state is all there already.
        new: Any = merged.__new__(merged)
        new.args = error.args
        for name, value in error.state_of().items():
            setattr(new, name, value)
        new.request = request
        return cast(ChassisError, new)

    @functools.cached_property
    def async_body(self) -> type[Any]:
        """The async body class: this module asserts that a stream is of its own base class."""
        from chassis.client._body import AsyncBodyMixin

        return type("AsyncBody", (AsyncBodyMixin, self.module.AsyncByteStream), {})

    @functools.cached_property
    def slot_body(self) -> type[Any]:
        """The body class that holds one of a fragile pool's connections."""
        from chassis.client._body import SlotBodyMixin

        return type("SlotBody", (SlotBodyMixin, self.module.AsyncByteStream), {})

    @functools.cached_property
    def upload(self) -> type[Any]:
        """The class of a request's body that can be read once, for both colours."""
        from chassis.client._body import UploadMixin

        return type("Upload", (UploadMixin, self.module.AsyncByteStream, self.module.SyncByteStream), {})

    @functools.cached_property
    def sync_body(self) -> type[Any]:
        """The sync body class."""
        from chassis.client._body import SyncBodyMixin

        return type("SyncBody", (SyncBodyMixin, self.module.SyncByteStream), {})


@functools.cache
def http_module(name: HTTPModuleName) -> HTTPModule:
    """The :class:`HTTPModule` of this name; made once per process."""
    return HTTPModule(name)


def module_of(request: Any) -> HTTPModule:
    """The module a ``Request`` object belongs to."""
    return http_module(sys.modules[type(request).__module__.partition(".")[0]].__name__)


def edge_error(error: ChassisError, request: Any) -> ChassisError:
    """``error`` as the clients raise it for ``request``: as an error of the request's HTTP module, too.

    A ``Rejected`` is its ``ConnectError`` as well, a ``DeadlineExceeded`` its ``TimeoutException``; any
    other error, and one that is both already, comes back as it is.
    """
    return module_of(request).edge_error(error, request)
