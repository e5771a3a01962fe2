"""Fallback: an answer in place of a call that failed."""

from chassis.fallback._policy import Fallback, FallbackUsed, fallback

__all__ = ["Fallback", "FallbackUsed", "fallback"]
