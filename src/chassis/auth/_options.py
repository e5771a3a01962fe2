from __future__ import annotations

from dataclasses import dataclass

from chassis.core import ConfigError
from chassis.core.options import Seconds, check_count, check_seconds

ASYMMETRIC = frozenset({
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
})  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TokenOptions:
    """What a JWT must be to be believed.

    :param audience: the token's ``aud`` must name one of these. Required: a provider's tokens for
        another service are valid tokens too.
    :param issuer: the token's ``iss`` must be this; None accepts any issuer whose key is in the set.
    :param algorithms: accepted signature algorithms. ``none`` and the HMAC family are never
        accepted: a public key is no secret (RFC 8725, 3.1).
    :param leeway: seconds by which the clocks of provider and verifier may differ.
    :param cache_size: verified tokens remembered, so that the signature is checked once and not at
        every request.
    """

    audience: str | tuple[str, ...]
    issuer: str | None = None
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    leeway: Seconds = 5.0
    cache_size: int = 10_000

    def __post_init__(self) -> None:
        audiences = (self.audience,) if isinstance(self.audience, str) else self.audience
        if not audiences or not all(audiences):
            raise ConfigError(
                f"{self.audience!r} names no audience",
                setting="audience",
                remedy="give the `aud` that the provider puts into tokens meant for you",
            )
        if self.issuer is not None and not self.issuer:
            raise ConfigError(
                "the issuer is empty", setting="issuer", remedy="give the tokens' `iss`, or leave it out"
            )
        strange = [each for each in self.algorithms if each not in ASYMMETRIC]
        if strange or not self.algorithms:
            raise ConfigError(
                f"{strange[0]!r} cannot be accepted" if strange else "no algorithm is accepted",
                setting="algorithms",
                remedy=f"choose from {', '.join(sorted(ASYMMETRIC))}",
            )
        check_seconds("leeway", self.leeway, zero=True)
        check_count("cache_size", self.cache_size)


@dataclass(frozen=True, kw_only=True)
class JWKSOptions:
    """When a provider's key set is fetched.

    :param refresh: seconds after which the set is fetched again. A request that finds it due does
        not wait, unless the set is twice as old.
    :param floor: least seconds between two fetches. A token whose key is not known waits this out
        rather than being refused: the provider may have begun to sign with a new key just now.
    :param unknown_burst: fetches that tokens with unknown key ids may cause in quick succession.
    :param unknown_refill: seconds after which they may cause one more. Beyond the burst they are
        refused at once, so a flood of invented key ids neither reaches the provider nor waits here.
    :param fetch_timeout: seconds one fetch may take.
    """

    refresh: Seconds = 300.0
    floor: Seconds = 1.0
    unknown_burst: int = 5
    unknown_refill: Seconds = 30.0
    fetch_timeout: Seconds = 5.0

    def __post_init__(self) -> None:
        for field in ("refresh", "unknown_refill", "fetch_timeout"):
            check_seconds(field, getattr(self, field))
        check_seconds("floor", self.floor, zero=True)
        check_count("unknown_burst", self.unknown_burst)
