"""The page that Prometheus reads."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chassis.core.clock import Clock, monotonic
from chassis.metrics._gauges import state_gauges
from chassis.metrics._instruments import default

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

KEEP = 1.0
"""Seconds a rendered page is served again."""

OPENMETRICS = "application/openmetrics-text"


@dataclass(frozen=True, slots=True)
class Page:
    """A rendered page and its content type."""

    body: bytes
    content_type: str


class Renderer:
    """Renders one registry, once at a time and at most once in ``KEEP`` seconds for each format."""

    def __init__(self, registry: CollectorRegistry | None = None, clock: Clock = monotonic) -> None:
        self._registry = registry
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[bool, tuple[float, Page]] = {}

    def kept(self, openmetrics: bool) -> Page | None:
        """The page of this format if it is fresh."""
        at, page = self._kept.get(openmetrics, (0.0, None))
        return page if page is not None and self._clock() - at < KEEP else None

    def render(self, openmetrics: bool) -> Page:
        """The page, from memory if it is fresh. May take long: not for the event loop."""
        with self._lock:
            page = self.kept(openmetrics)
            if page is None:
                page = self._generate(openmetrics)
                self._kept[openmetrics] = (self._clock(), page)
            return page

    def _generate(self, openmetrics: bool) -> Page:
        from prometheus_client.exposition import choose_encoder

        # What the scraper wrote about versions and escaping is not passed on: two formats are served.
        encode, content_type = choose_encoder(f"{OPENMETRICS}; version=1.0.0" if openmetrics else "")
        return Page(encode(_source(default(self._registry))), content_type)


def _source(registry: CollectorRegistry) -> CollectorRegistry:
    """``registry`` itself, or what all worker processes wrote into the common directory."""
    gauges = state_gauges(registry)
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return registry
    from prometheus_client import CollectorRegistry
    from prometheus_client.multiprocess import MultiProcessCollector

    merged = CollectorRegistry()
    MultiProcessCollector(merged)  # type: ignore[no-untyped-call]  # the library's own annotations end here
    merged.register(gauges)
    return merged


_renderer = Renderer()


def _wants_openmetrics(accept: str | None) -> bool:
    return accept is not None and OPENMETRICS in accept


def render(accept: str | None = None) -> Page:
    """The metrics page, rendered here and now unless one is fresh. For threads and WSGI.

    :param accept: the request's ``Accept`` header; OpenMetrics is served to who asks for it, the
        classic text format to all others.
    """
    return _renderer.render(_wants_openmetrics(accept))


async def exposition(accept: str | None = None) -> Page:
    """As :func:`render`, in a thread: the event loop goes on meanwhile.

    With ``PROMETHEUS_MULTIPROC_DIR`` set before the first import of prometheus_client (``chassis
    run`` sets it), the page sums up all worker processes.
    """
    openmetrics = _wants_openmetrics(accept)
    page = _renderer.kept(openmetrics)
    if page is None:
        import anyio.to_thread

        # A limiter of its own: an application whose threads are all busy can still be scraped.
        page = await anyio.to_thread.run_sync(_renderer.render, openmetrics, limiter=anyio.CapacityLimiter(1))
    return page


def worker_exited(pid: int) -> None:
    """Take the live gauges of a worker process that has ended out of the common directory.

    For the parent of several workers; does nothing without ``PROMETHEUS_MULTIPROC_DIR``.
    """
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(pid)  # type: ignore[no-untyped-call]  # as above
