from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any

from chassis.loadbalancing._candidate import C
from chassis.loadbalancing._round_robin import RoundRobin

_POINTS = 100  # per unit of weight
_LEAST, _MOST = 1024, 4096  # points of a whole ring
_BYTES = 8  # of a point
_PER_DIGEST = 64 // _BYTES


class ConsistentHash:
    """The candidate that the call's key belongs to; in turn for calls without a key.

    A ring of hashed points, a hundred for each unit of weight (scaled so that the ring has 1,024 to
    4,096): a key belongs to the next point, or to the next one whose candidate is fit. So when one
    of n leaves or is unfit, its own keys move and all others stay, in every process alike. Where the
    ring is scaled, the points of the others change in number too and about as many keys again move.

    :param draw: draws from [0, 1).
    """

    def __init__(self, *, draw: Callable[[], float] = random.random) -> None:
        self._in_turn = RoundRobin(draw=draw)
        # Candidates, points and their owners are replaced together: no lock is needed to read them.
        self._ring: tuple[Sequence[Any], list[int], list[Any]] = ((), [], [])

    def choose(
        self, candidates: Sequence[C], fit: Callable[[C], bool], *, key: str | None, now: float
    ) -> C | None:
        if key is None:
            return self._in_turn.choose(candidates, fit, key=key, now=now)
        ring = self._ring
        if ring[0] is not candidates:
            ring = self._ring = (candidates, *_ring(candidates))
        _, points, owners = ring
        start = bisect_left(points, stable_hash(key))
        unfit: list[C] = []
        for step in range(start, start + len(owners)):
            owner: C = owners[step % len(owners)]
            if owner in unfit:
                continue
            if fit(owner):
                return owner
            unfit.append(owner)
            if len(unfit) == len(candidates):
                break
        return None


def stable_hash(text: str) -> int:
    """The same 64 bits for ``text`` in every process, unlike ``hash``."""
    # Any text: a key may come from outside, with what no encoding has a place for.
    data = text.encode(errors="surrogatepass")
    return int.from_bytes(blake2b(data, digest_size=_BYTES).digest(), "big")


def _ring(candidates: Sequence[Any]) -> tuple[list[int], list[Any]]:
    weights = sum(each.instance.weight for each in candidates)
    scale = min(max(_POINTS, _LEAST / weights), _MOST / weights)
    owned: list[tuple[int, int]] = []
    for number, each in enumerate(candidates):
        points = max(1, round(scale * each.instance.weight))
        name = "\0".join(map(str, each.instance.key)).encode()
        for part in range(-(-points // _PER_DIGEST)):
            digest = blake2b(name + b"\0%d" % part, digest_size=64).digest()
            wanted = min(points - part * _PER_DIGEST, _PER_DIGEST) * _BYTES
            owned += [
                (int.from_bytes(digest[at : at + _BYTES], "big"), number) for at in range(0, wanted, _BYTES)
            ]
    owned.sort()
    return [point for point, _ in owned], [candidates[number] for _, number in owned]
