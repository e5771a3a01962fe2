"""The libraries that one could take instead, each as its own documentation shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeAlias

Made: TypeAlias = Callable[[Any], Any]
"""Takes the peer's module, gives what guards a function as a decorator."""


class Failure(Exception):
    """What the guarded function raises to open a breaker, and to be tried again."""


def listener(*event: Any, **fields: Any) -> None:
    """Hears everything and does nothing."""


class Hooks:
    """The same for libraries that call a method for each kind of event; it has every method."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return listener


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One library, or one way to set it up.

    :param breaker: a breaker with five failures in its threshold or window, as a decorator.
    :param breaker_async: the same for coroutine functions, where it is another object.
    :param kinds: which functions it guards.
    :param trips: whether failing calls can open it at once.
    :param heard: what hears of a refused call: a listener attached, or nothing.
    :param keyed: a breaker for each key, around a plain function; the key is its argument.
    :param fresh: an object alone, for its memory; None if the decorator is all there is.
    :param pair: its retry around its breaker.
    """

    distribution: str
    module: str = ""
    variant: str = ""
    breaker: Made | None = None
    breaker_async: Made | None = None
    kinds: str = "sync async"
    trips: bool = True
    heard: str = "no listener"
    keyed: Made | None = None
    fresh: Made | None = None
    retry: Made | None = None
    pair: Made | None = None
    bulkhead: Made | None = None
    rate: Made | None = None
    fallback: Made | None = None
    hedge: Made | None = None
    timeout: Made | None = None
    note: str = ""

    @property
    def name(self) -> str:
        """As it stands in the report."""
        return f"{self.distribution}{', ' * bool(self.variant)}{self.variant}"


NAMES = [str(number) for number in range(1_000)]
"""Keys for those who take names only, made before they are timed."""


# ── breakers ─────────────────────────────────────────────────────────────────────────────────


def _nopanic(m: Any, **options: Any) -> Any:
    return m.circuit_breaker(min_calls=5, window=30.0, reset_timeout=3600.0, **options)


def _interlock(m: Any) -> Any:
    config = m.Config(minimum_number_of_calls=5, wait_duration_in_open=3600.0)
    return m.CircuitBreaker(name="peer", config=config, listener=Hooks())


def _interlock_pair(m: Any) -> Any:
    return m.Pipeline.builder().retry(attempts=3).circuit_breaker(_interlock(m)).build()


def _interlock_keyed(m: Any) -> Any:
    registry = m.Registry(config=m.Config(minimum_number_of_calls=5))

    def guard(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda key: registry.get(NAMES[key]).call(function, key)

    return guard


def _purgatory_keyed(m: Any) -> Any:
    factory = m.SyncCircuitBreakerFactory()

    def guard(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def guarded(key: Any) -> Any:
            with factory.get_breaker(NAMES[key]):
                return function(key)

        return guarded

    return guard


def _pyresilience(m: Any, **options: Any) -> Any:
    config = m.CircuitBreakerConfig(failure_threshold=5, recovery_timeout=3600.0, **options)
    return m.resilient(circuit_breaker=config, listeners=[listener])


def _fluxgate(m: Any, kind: str) -> Any:
    from fluxgate.retries import Cooldown
    from fluxgate.trippers import FailureRate, FailureStreak, MinRequests, SlowRate

    tripper = FailureStreak(5) | (MinRequests(20) & (FailureRate(0.5) | SlowRate(0.5, threshold=1.0)))
    return getattr(m, kind)(tripper=tripper, retry=Cooldown(3600.0), listeners=[listener])


def _aioresilience(m: Any) -> Any:
    config = m.CircuitConfig(failure_threshold=5, recovery_timeout=3600.0)
    return m.with_circuit_breaker(m.CircuitBreaker("peer", config))


PEERS = (
    Peer(
        distribution="circuitbreaker",
        breaker=lambda m: m.CircuitBreaker(failure_threshold=5, recovery_timeout=3600, name="peer"),
        fresh=lambda m: m.CircuitBreaker(failure_threshold=5),
        note="consecutive failures; no half-open limit; cancellation counts as success",
    ),
    Peer(
        distribution="grit-toolkit",
        module="grit",
        breaker=lambda m: m.breaker(fails=5, reset_after=3600.0),
        fresh=lambda m: m.breaker(fails=5),
        retry=lambda m: m.retry(tries=3, on=Failure, wait=m.constant(0.0)),
        pair=lambda m: m.policy(m.retry(tries=3, on=Failure), m.breaker(fails=5)),
        bulkhead=lambda m: m.bulkhead(size=64),
        rate=lambda m: m.limiter(rate=1e9, burst=1e9),
        fallback=lambda m: m.fallback(value=0, on=Failure),
        hedge=lambda m: m.hedge(30.0),
        timeout=lambda m: m.timeout(30.0),
        note="consecutive failures; loses its probe's place on cancellation",
    ),
    Peer(
        distribution="hyx",
        module="hyx.circuitbreaker",
        kinds="async",
        breaker=lambda m: m.consecutive_breaker(failure_threshold=5, recovery_time_secs=3600),
        fresh=lambda m: m.consecutive_breaker(failure_threshold=5),
        note="consecutive failures; no half-open limit",
    ),
    Peer(
        distribution="purgatory",
        breaker=lambda m: m.SyncCircuitBreakerFactory(5, 3600)("peer"),
        breaker_async=lambda m: m.AsyncCircuitBreakerFactory(5, 3600)("peer"),
        keyed=_purgatory_keyed,
        note="consecutive failures; no half-open limit; cancellation counts as failure",
    ),
    Peer(
        distribution="nopanic",
        breaker=_nopanic,
        keyed=lambda m: m.keyed(lambda key: _nopanic(m), key=lambda key: key),
        heard="a listener",
        fresh=_nopanic,
        retry=lambda m: m.retry(attempts=3, on=Failure, backoff=0.0),
        pair=lambda m: m.compose(m.retry(attempts=3, on=Failure), _nopanic(m)),
        bulkhead=lambda m: m.bulkhead(64),
        rate=lambda m: m.rate_limit(1e9),
        fallback=lambda m: m.fallback(0, on=Failure),
        hedge=lambda m: m.hedge(delay=30.0),
        timeout=lambda m: m.timeout(30.0),
        note="failure rate; a probe that hangs blocks it for good",
    ),
    Peer(
        distribution="nopanic",
        variant="slow calls",
        breaker=lambda m: _nopanic(m, slow_call_duration=1.0),
        heard="a listener",
        note="as above, with slow-call detection",
    ),
    Peer(
        distribution="aiobreaker",
        breaker=lambda m: m.CircuitBreaker(5, timedelta(hours=1), listeners=[Hooks()]),
        fresh=lambda m: m.CircuitBreaker(5),
        heard="a listener",
        note="consecutive failures; no half-open limit; wall clock",
    ),
    Peer(
        distribution="asyncbreaker",
        kinds="async",
        breaker=lambda m: m.CircuitBreaker(5, timedelta(hours=1)),
        fresh=lambda m: m.CircuitBreaker(5),
        note="consecutive failures; no half-open limit; wall clock",
    ),
    Peer(
        distribution="pybreaker",
        kinds="sync",
        breaker=lambda m: m.CircuitBreaker(5, 3600, listeners=[Hooks()]),
        fresh=lambda m: m.CircuitBreaker(5),
        heard="a listener",
        note="consecutive failures; holds its lock during the call; wall clock",
    ),
    Peer(
        distribution="interlock-cb",
        module="interlock",
        breaker=_interlock,
        keyed=_interlock_keyed,
        fresh=lambda m: m.CircuitBreaker(name="peer"),
        heard="a listener",
        pair=_interlock_pair,
        note="failure and slow-call rate; drops stale results",
    ),
    Peer(
        distribution="pyresilience",
        breaker=_pyresilience,
        heard="a listener",
        retry=lambda m: m.resilient(
            retry=m.RetryConfig(max_attempts=3, delay=0.0, jitter=False, retry_on=[Failure])
        ),
        pair=lambda m: m.resilient(
            retry=m.RetryConfig(max_attempts=3, retry_on=[Failure]), circuit_breaker=m.CircuitBreakerConfig()
        ),
        bulkhead=lambda m: m.resilient(bulkhead=m.BulkheadConfig(max_concurrent=64)),
        rate=lambda m: m.resilient(rate_limiter=m.RateLimiterConfig(max_calls=10**9, period=1.0)),
        fallback=lambda m: m.resilient(fallback=m.FallbackConfig(handler=0, fallback_on=[Failure])),
        timeout=lambda m: m.resilient(timeout=m.TimeoutConfig(seconds=30.0)),
        note="consecutive failures; no half-open limit; one decorator for all, so each part pays for it",
    ),
    Peer(
        distribution="pyresilience",
        variant="window, slow calls",
        breaker=lambda m: _pyresilience(m, sliding_window_size=100, minimum_calls=5, slow_call_duration=1.0),
        heard="a listener",
        note="as above, over 100 calls, with slow-call detection",
    ),
    Peer(
        distribution="fluxgate",
        breaker=lambda m: _fluxgate(m, "CircuitBreaker"),
        breaker_async=lambda m: _fluxgate(m, "AsyncCircuitBreaker"),
        fresh=lambda m: m.CircuitBreaker(),
        heard="a listener of transitions",
        note="failure and slow-call rate; not for threads; wall clock",
    ),
    Peer(
        distribution="aioresilience",
        kinds="async",
        breaker=_aioresilience,
        fresh=lambda m: m.CircuitBreaker("peer"),
        note="consecutive failures",
    ),
    Peer(
        distribution="grelmicro",
        module="grelmicro.resilience",
        kinds="async",
        breaker=lambda m: m.CircuitBreaker("peer", error_threshold=5, reset_timeout=3600),
        fresh=lambda m: m.CircuitBreaker("peer"),
        note="consecutive failures",
    ),
    Peer(
        distribution="aiomisc",
        kinds="async",
        trips=False,
        breaker=lambda m: m.cutout(0.5, 30, Exception),
        timeout=lambda m: m.timeout(30.0),
        note="failure rate; opens only after all its buckets were filled, so it is not seen refusing",
    ),
    Peer(
        distribution="tenacity",
        retry=lambda m: m.retry(
            stop=m.stop_after_attempt(3), retry=m.retry_if_exception_type(Failure), wait=m.wait_none()
        ),
    ),
    Peer(
        distribution="stamina",
        retry=lambda m: m.retry(on=Failure, attempts=3, wait_initial=0.0, wait_jitter=0.0),
    ),
    Peer(
        distribution="hyx",
        module="hyx.retry",
        variant="retry",
        kinds="async",
        retry=lambda m: m.retry(on=Failure, attempts=3, backoff=0.0),
    ),
    Peer(
        distribution="hyx",
        module="hyx.bulkhead",
        variant="bulkhead",
        kinds="async",
        bulkhead=lambda m: m.bulkhead(max_concurrency=64, max_capacity=128),
    ),
    Peer(
        distribution="hyx",
        module="hyx.fallback",
        variant="fallback",
        kinds="async",
        fallback=lambda m: m.fallback(_zero, on=Failure),
    ),
    Peer(
        distribution="hyx",
        module="hyx.timeout",
        variant="timeout",
        kinds="async",
        timeout=lambda m: m.timeout(30.0),
    ),
    Peer(
        distribution="hyx",
        module="hyx.ratelimit",
        variant="token bucket",
        kinds="async",
        rate=lambda m: m.tokenbucket(max_executions=1e9, per_time_secs=1.0, bucket_size=1e9),
    ),
)


async def _zero(*call: Any, **more: Any) -> int:
    return 0
