"""Fallback: an answer in place of a call that failed."""

from chassis.fallbacks._options import FallbackOptions
from chassis.fallbacks._policy import Fallback, FallbackUsed, fallback

__all__ = ["Fallback", "FallbackOptions", "FallbackUsed", "fallback"]
