"""``chassis run`` and ``chassis gateway``: what only a parent process can do.

It checks the port, sets the directory in which several workers share their metrics before any of
them imports prometheus_client, gives the server its own time limits, and serves WSGI applications
through the ASGI edge, so that they drain like all others.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from chassis.background import background
from chassis.core import ConfigError
from chassis.server import Address, WSGIEdge

if TYPE_CHECKING:
    from chassis.service import Chassis

DEBUG = "CHASSIS_DEBUG"
"""Set by ``chassis --debug``, so that workers show tracebacks too."""


def serve(target: str, *, host: str, port: int, workers: int, assignments: tuple[str, ...]) -> None:
    """Serve ``module:app`` until told to stop.

    :raises ConfigError: a setting, the target or the port cannot be used.
    """
    _run(functools.partial(load_application, target, assignments), host, port, workers, assignments)


def serve_gateway(
    config: Path, *, name: str, host: str, port: int, workers: int, assignments: tuple[str, ...]
) -> None:
    """Serve a gateway from its TOML file until told to stop.

    :raises ConfigError: the file, a setting or the port cannot be used.
    """
    from chassis.gateway import check

    check(config)
    loader = functools.partial(load_gateway, config, name, assignments)
    _run(loader, host, port, workers, assignments)


def load_application(target: str, assignments: tuple[str, ...]) -> tuple[Any, Chassis]:
    """The ASGI application to serve for ``target``, and its chassis. Runs in the worker."""
    from chassis.cli._target import interface_of, load_target
    from chassis.service import Chassis, chassis_of

    app = load_target(target)
    chassis = chassis_of(app)
    if chassis is None:
        # It has none of its own, so the module's name is the service's.
        chassis = Chassis(target.partition(":")[0].rpartition(".")[2])
        app = chassis.wsgi(app) if interface_of(app) == "wsgi" else chassis.asgi(app)
    chassis.override(assignments)
    edge = app if isinstance(app, WSGIEdge) else getattr(app, "wsgi_app", None)
    if isinstance(edge, WSGIEdge):
        app = chassis.asgi(_wsgi_as_asgi(edge))
    return app, chassis


def load_gateway(config: Path, name: str, assignments: tuple[str, ...]) -> tuple[Any, Chassis]:
    """The gateway as an ASGI application, and its chassis. Runs in the worker."""
    from chassis.gateway import Gateway
    from chassis.service import Chassis

    chassis = Chassis(name)
    chassis.override(assignments)
    return chassis.asgi(Gateway(config, chassis.upstreams)), chassis


def _wsgi_as_asgi(edge: WSGIEdge) -> Any:
    """The application inside a WSGI edge, as ASGI; the ASGI edge takes the WSGI edge's place."""
    try:
        from a2wsgi import WSGIMiddleware
    except ModuleNotFoundError as error:
        raise ImportError("serving WSGI needs a2wsgi: pip install 'chassis-kit[serve]'") from error
    edge.lifecycle.retire()
    app: Any = edge.app  # a2wsgi describes the same WSGI types by classes of its own
    inner: Any = WSGIMiddleware(app, workers=64)

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        async def received() -> Any:
            # a2wsgi hands it to another thread, which takes a coroutine; granian's is a future.
            return await receive()

        await inner(scope, received, send)

    return asgi


def _run(
    loader: Callable[[], tuple[Any, Chassis]],
    host: str,
    port: int,
    workers: int,
    assignments: tuple[str, ...],
) -> None:
    try:
        from granian.constants import Interfaces

        from chassis.cli._granian import HurriedGranian
    except ModuleNotFoundError as error:
        raise ImportError("chassis run needs granian: pip install 'chassis-kit[serve]'") from error
    from chassis.service import local_options

    options = local_options(assignments).server
    check_port(host, port)
    directory = tempfile.mkdtemp(prefix="chassis-")
    try:
        if workers > 1:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory
        server = HurriedGranian(
            "chassis",  # unused: the loader below makes the application
            address=host,
            port=port,
            interface=Interfaces.ASGI,
            workers=workers,
            log_enabled=False,
            # Without a limit of its own granian waits for open streams for ever.
            workers_kill_timeout=int(options.drain + options.grace + 5),
        )
        try:
            server.serve(
                target_loader=functools.partial(_load_in_worker, loader, directory), wrap_loader=False
            )
        except SystemExit:
            failed = Path(directory, "failed")
            if failed.exists():
                sys.exit(int(failed.read_text() or 1))
            raise
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _load_in_worker(loader: Callable[[], tuple[Any, Chassis]], directory: str) -> Any:
    """Make the application in a worker; one that cannot be made ends the whole command.

    A worker that fails must not be started again and again, and what is wrong is told once.
    """
    try:
        app, chassis = loader()
    except Exception as error:  # noqa: BLE001 - the application's own import may raise anything
        _give_up(directory, error)
    background.start(functools.partial(_stop_with, os.getppid()), name="parent")
    chassis.on_ready(functools.partial(_announce, directory))
    chassis.on_start_failure(functools.partial(_give_up, directory))
    return app


async def _stop_with(parent: int) -> None:
    """Stop this worker, drained, when its parent was killed and can tell it nothing any more."""
    while os.getppid() == parent:  # noqa: ASYNC110 - the system tells of it in no portable way
        await asyncio.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)


def _give_up(directory: str, error: Exception) -> NoReturn:
    """End this worker past the server's own handling, leaving its exit status to the parent."""
    refused = isinstance(error, ConfigError | ImportError)
    try:
        Path(directory, "failed").touch(exist_ok=False)
    except FileExistsError:
        pass
    else:
        if refused and not os.environ.get(DEBUG):
            click.echo(f"chassis: {error}", err=True)
        else:
            traceback.print_exception(error)
        sys.stderr.flush()
        Path(directory, "failed").write_text("2" if refused else "1")
    os._exit(2 if refused else 1)


def _announce(directory: str, service: str, address: Address) -> None:
    """Print the ready line, once for all workers."""
    try:
        Path(directory, "announced").touch(exist_ok=False)
    except FileExistsError:
        return
    line = json.dumps({"service": service, "address": f"http://{address}"})
    click.echo(line)
    sys.stdout.flush()


def check_port(host: str, port: int) -> None:
    """Refuse an address that cannot be listened on, before anything is started.

    :raises ConfigError: it is in use, or not this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
    except socket.gaierror as error:
        raise ConfigError(
            f"{host!r} is no address: {error.strerror}",
            setting="--host",
            origin="command line",
            remedy="give an IP address of this machine, 0.0.0.0 for all",
        ) from None
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror}",
            setting="--port",
            origin="command line",
            remedy="give a free port, or 0 to take one",
        ) from None
