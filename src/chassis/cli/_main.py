from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from chassis.core import ChassisError, ConfigError

_HOST = click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")


def _port(default: int) -> Callable[[Any], Any]:
    return click.option(
        "--port",
        default=default,
        show_default=True,
        type=click.IntRange(0, 65535),
        help="Port to listen on; 0 takes a free one.",
    )


_WORKERS = click.option(
    "--workers", default=1, show_default=True, type=click.IntRange(1), help="Processes that serve."
)
_SET = click.option(
    "--set", "assignments", multiple=True, metavar="NAME=VALUE", help="Override a setting; may be repeated."
)


@click.group()
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def cli(debug: bool) -> None:
    """A microservice chassis: run services, a development registry, a gateway."""


@cli.command()
@click.argument("target", metavar="MODULE:APP")
@_HOST
@_port(8000)
@_WORKERS
@_SET
def run(target: str, host: str, port: int, workers: int, assignments: tuple[str, ...]) -> None:
    """Serve an ASGI or WSGI application.

    Prints one JSON line with the service and its address once it serves and is registered.
    """
    from chassis.cli._serve import serve

    serve(target, host=host, port=port, workers=workers, assignments=assignments)


@cli.command()
@click.argument("config", type=click.Path(path_type=Path))
@_HOST
@_port(8080)
@_WORKERS
@_SET
@click.option("--name", default="gateway", show_default=True, help="The service name it registers under.")
def gateway(
    config: Path, host: str, port: int, workers: int, assignments: tuple[str, ...], name: str
) -> None:
    """Serve an API gateway from a TOML file of routes."""
    from chassis.cli._serve import serve_gateway

    serve_gateway(config, name=name, host=host, port=port, workers=workers, assignments=assignments)


@cli.command()
@_HOST
@_port(8500)
def dev(host: str, port: int) -> None:
    """Serve an in-memory agent that speaks Consul's HTTP API, for development."""
    from chassis.cli._dev import serve_dev_agent

    serve_dev_agent(host=host, port=port)


@cli.command()
@click.argument("target", metavar="MODULE:APP|GATEWAY.TOML")
@_SET
def check(target: str, assignments: tuple[str, ...]) -> None:
    """Check a service's settings, or a gateway's routes, without serving them."""
    from chassis.cli._check import check_target

    click.echo(check_target(target, assignments=assignments))


@cli.command()
@click.argument("target", metavar="[MODULE:APP]", required=False)
@click.option("--url", default="", help="Ask a running service in place of its settings: http://host:port.")
@click.option(
    "--token",
    default="",
    envvar="CHASSIS_HEALTH_TOKEN",
    help="The running service's health_token; CHASSIS_HEALTH_TOKEN by default.",
)
@click.option("--service", "services", multiple=True, metavar="NAME", help="Look at it; may be repeated.")
@click.option(
    "--wait",
    default=3.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="Seconds the sources get to answer.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_SET
def doctor(
    target: str | None,
    url: str,
    token: str,
    services: tuple[str, ...],
    wait: float,
    as_json: bool,
    assignments: tuple[str, ...],
) -> None:
    """Say where services are, what is wrong, and what to do next.

    Reads the settings as the service would and asks what they lead to, or asks a running service
    (--url), which also tells of its breakers and ejections. Exit status: 0 all is well, 1 there is
    something to do.
    """
    from chassis.cli._doctor import doctor as look

    report = look(target, url=url, token=token, services=services, wait=wait, assignments=assignments)
    click.echo(report.as_json() if as_json else report.as_text())
    sys.exit(0 if report.well else 1)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line. Exit status: 0 done, 1 failed, 2 given something that cannot be used."""
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given
    if debug:
        os.environ["CHASSIS_DEBUG"] = "1"
    try:
        cli.main(
            args=[each for each in given if each != "--debug"], prog_name="chassis", standalone_mode=False
        )
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except click.Abort:
        sys.exit(130)
    except (ConfigError, ImportError) as error:
        _fail(error, 2, debug)
    except ChassisError as error:
        _fail(error, 1, debug)


def _fail(error: Exception, status: int, debug: bool) -> None:
    """One message, and a traceback only for those who ask for it."""
    if debug:
        raise error
    click.echo(f"chassis: {error}", err=True)
    sys.exit(status)
