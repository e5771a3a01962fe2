"""Gauges whose values are asked for when the page is rendered."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from chassis.core.errors import ConfigError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import GaugeMetricFamily

Samples: TypeAlias = Mapping[tuple[str, ...], float]
"""Values by label values, which stand in the order the labels were declared."""

LIMIT = 2_000
"""Samples of one gauge; more are left out."""


def register_gauge(
    name: str,
    documentation: str,
    labels: Sequence[str],
    callback: Callable[[], Samples],
    *,
    registry: CollectorRegistry | None = None,
) -> Callable[[], None]:
    """Show ``callback()`` as the gauge ``name`` whenever the page is rendered.

    Several callbacks may share a name, documentation and labels: their samples stand together, and of
    two with the same labels' values the one of who was registered first. The
    callback runs in the rendering thread, at most once a second; if it raises, the gauge lacks its
    samples and ``chassis_scrape_errors`` counts it. With several worker processes the page shows
    the gauges of the worker that was asked.

    :param callback: returns ``{("catalog", "catalog-1"): 1.0}`` for two labels, ``{(): 1.0}`` for none.
    :returns: a function that takes the callback away again.
    :raises ConfigError: another gauge of this name has other labels.
    """
    return _collector(registry).add(name, documentation, tuple(labels), callback)


@dataclass(frozen=True, slots=True)
class _Gauge:
    documentation: str
    labels: tuple[str, ...]
    callbacks: tuple[Callable[[], Samples], ...]


class StateGauges:
    """A prometheus_client collector over registered callbacks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._gauges: dict[str, _Gauge] = {}
        self._errors = 0

    def add(
        self, name: str, documentation: str, labels: tuple[str, ...], callback: Callable[[], Samples]
    ) -> Callable[[], None]:
        with self._lock:
            known = self._gauges.get(name)
            if known is not None and known.labels != labels:
                raise ConfigError(
                    f"the gauge {name!r} exists with the labels {known.labels}, not {labels}",
                    setting=name,
                    remedy="use the same labels or another name",
                )
            others = known.callbacks if known is not None else ()
            self._gauges[name] = _Gauge(documentation, labels, (*others, callback))

        def remove() -> None:
            with self._lock:
                gauge = self._gauges.get(name)
                if gauge is None:
                    return
                left = tuple(each for each in gauge.callbacks if each is not callback)
                if left:
                    self._gauges[name] = _Gauge(gauge.documentation, gauge.labels, left)
                else:
                    del self._gauges[name]

        return remove

    def describe(self) -> Iterable[Any]:
        """Nothing: the registry then does not call ``collect`` to learn the names."""
        return ()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        from prometheus_client.core import GaugeMetricFamily

        with self._lock:
            gauges = sorted(self._gauges.items())
        for name, gauge in gauges:
            family = GaugeMetricFamily(name, gauge.documentation, labels=gauge.labels)
            for values, value in self._samples(gauge).items():
                family.add_metric(values, value)
            yield family
        yield GaugeMetricFamily(
            "chassis_scrape_errors", "Callbacks of gauges that raised so far.", value=self._errors
        )

    def _samples(self, gauge: _Gauge) -> dict[tuple[str, ...], float]:
        """One for each set of labels: a page that has two of them is refused as a whole."""
        samples: dict[tuple[str, ...], float] = {}
        for callback in gauge.callbacks:
            try:
                told = {tuple(map(str, key)): float(value) for key, value in callback().items()}
            except Exception:  # noqa: BLE001 - one gauge must not cost the whole page
                self._errors += 1
            else:
                for each, value in told.items():
                    samples.setdefault(each, value)
        return dict(itertools.islice(samples.items(), LIMIT))


_lock = threading.Lock()
_collectors: dict[int, tuple[CollectorRegistry, StateGauges]] = {}


def _collector(registry: CollectorRegistry | None) -> StateGauges:
    from chassis.metrics._instruments import default

    return state_gauges(default(registry))


def state_gauges(registry: CollectorRegistry) -> StateGauges:
    """The collector of ``registry``, registered there when first asked for."""
    with _lock:
        known = _collectors.get(id(registry))
        if known is None:
            known = _collectors[id(registry)] = (registry, StateGauges())
            registry.register(known[1])
        return known[1]
