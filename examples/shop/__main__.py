"""``python -m examples.shop``: the shop as real processes under load, act by act, with a verdict for each."""

import os
import shutil
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import click

from examples.shop.acts import ACTS
from examples.shop.processes import ProcessFailed
from examples.shop.story import BadInput, Options, play
from examples.shop.without import FEATURES

START_ONE = "start one"


@click.command()
@click.option(
    "--consul",
    is_flag=False,
    flag_value=START_ONE,
    metavar="[ADDRESS]",
    help="Play on a real Consul: the one at ADDRESS or CONSUL_HTTP_ADDR, else one that is started for it.",
)
@click.option(
    "--acts", default=",".join(ACTS), show_default=True, metavar="NAME,...", help="The acts to play."
)
@click.option(
    "--rate", default=200.0, show_default=True, type=click.FloatRange(20), help="Requests a second."
)
@click.option("--quick", is_flag=True, help="Wait less between the steps.")
@click.option(
    "--without",
    default="",
    metavar="NAME,...",
    help=f"Switch off: {', '.join(FEATURES)}. What was it good for?",
)
@click.option("--keep", is_flag=True, help="Leave it running at the end, and print the addresses.")
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), help="Keep all output there.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def main(
    consul: str | None,
    acts: str,
    rate: float,
    quick: bool,
    without: str,
    keep: bool,
    folder: Path | None,
    debug: bool,
) -> None:
    """Six services under load: an instance is killed, payments fails, keys rotate, everything is restarted.

    Exit status: 0 if every act passed, 1 if one failed, 2 for something that cannot be used.
    """
    try:
        registry, program = find_consul(consul)
        options = Options(
            registry=registry,
            program=program,
            acts=known("--acts", acts, tuple(ACTS)),
            without=frozenset(known("--without", without, FEATURES)),
            rate=rate,
            quick=quick,
            keep=keep,
        )
        status = run(options, folder)
    except BadInput as error:
        if debug:
            raise
        click.echo(f"shop: {error}", err=True)
        status = 2
    except ProcessFailed as error:
        if debug:
            raise
        click.echo(f"\nshop: {error}", err=True)
        status = 1
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)


def run(options: Options, folder: Path | None) -> int:
    """Play in ``folder``, or in one that is removed when all went well."""
    kept = folder is not None
    folder = (folder or Path(tempfile.mkdtemp(prefix="shop-"))).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise BadInput(f"--folder: {folder} is not empty; name a new one")
    passed = False
    try:
        passed = play(options, folder)
    finally:
        if passed and not kept:
            shutil.rmtree(folder, ignore_errors=True)
        elif not kept:
            click.echo(f"The output of all processes is in {folder}", err=True)
    return 0 if passed else 1


def find_consul(given: str | None) -> tuple[str, str]:
    """The address of the Consul to play on, and the program to start if there is no address; neither: ``chassis dev``.

    :raises BadInput: the address cannot be used, or there is no program.
    """
    origin = "--consul"
    if given in (None, START_ONE):
        origin, address = "CONSUL_HTTP_ADDR", os.environ.get("CONSUL_HTTP_ADDR")
        if not address:
            if given is None:
                return "", ""
            program = os.environ.get("CONSUL_BIN") or shutil.which("consul")
            if not program:
                raise BadInput(
                    "--consul: no consul program on PATH; give --consul HOST:PORT, or set CONSUL_BIN"
                )
            return "", program
        given = address
    try:
        parts = urlsplit(given if "//" in given else f"http://{given}")
        usable = parts.scheme == "http" and parts.hostname and parts.port and not parts.path.strip("/")
    except ValueError:
        usable = False
    if not usable:
        raise BadInput(f"{origin}: {given!r} is no address of a Consul; write HOST:PORT")
    return f"{parts.hostname}:{parts.port}", ""


def known(option: str, names: str, known_names: tuple[str, ...]) -> tuple[str, ...]:
    """The names of a list.

    :raises BadInput: one of them is not known.
    """
    found = tuple(each.strip() for each in names.split(",") if each.strip())
    for each in found:
        if each not in known_names:
            raise BadInput(f"{option}: there is no {each!r}; there are {', '.join(known_names)}")
    return found


if __name__ == "__main__":
    main()
