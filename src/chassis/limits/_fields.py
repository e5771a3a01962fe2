"""A rate limit told to HTTP clients: the fields ``RateLimit-Policy`` and ``RateLimit``.

Their form is that of draft-ietf-httpapi-ratelimit-headers (since revision 08; read in 11), written as
structured fields (RFC 9651). Earlier revisions had three fields, RateLimit-Limit and its like.
"""

from __future__ import annotations

import math
from urllib.parse import quote

from chassis.core.headers import RATE_LIMIT, RATE_LIMIT_POLICY
from chassis.limits._options import RateLimitOptions

_LARGEST = 999_999_999_999_999  # a structured field's Integer has fifteen digits
_PRINTABLE = "".join(map(chr, range(0x20, 0x7F)))
_ROUNDING = 1e-9


def quota_and_window(options: RateLimitOptions) -> tuple[int, int]:
    """What is admitted in the long run, as so many calls in so many whole seconds.

    It is ``rate`` and ``per`` where these can be told: the window has no fractions, and is long
    enough for the burst to be part of the quota.
    """
    refill = options.calls_at_once * options.per / options.rate
    window = max(1, math.ceil(min(max(options.per, refill), _LARGEST) - _ROUNDING))
    quota = math.floor(window * options.rate / options.per + _ROUNDING)
    return min(quota, _LARGEST), window


def rate_limit_fields(
    name: str, quota: int, window: int, *, remaining: int, seconds: float
) -> dict[str, str]:
    """The two fields of one rate limit.

    :param name: of the policy; what a structured String cannot hold is percent-encoded.
    :param quota: calls in ``window`` seconds in the long run.
    :param remaining: calls that are admitted now.
    :param seconds: in which that is all a caller should make of them; told as whole ones, rounded up.
    """
    item = quote(name, _PRINTABLE, errors="replace").replace("\\", r"\\").replace('"', r"\"")
    whole = max(1, math.ceil(min(seconds, _LARGEST) - _ROUNDING))
    return {
        RATE_LIMIT_POLICY: f'"{item}";q={quota};w={window}',
        RATE_LIMIT: f'"{item}";r={min(remaining, quota)};t={whole}',
    }
