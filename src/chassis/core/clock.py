"""Time comes in through the door: every machine takes ``now``, every policy takes a clock."""

import time
from collections.abc import Callable
from typing import TypeAlias

Clock: TypeAlias = Callable[[], float]
"""Returns seconds from an arbitrary origin and never steps back. Wall time decides nothing here."""

monotonic: Clock = time.monotonic
"""The clock every policy uses unless it is given another one."""
