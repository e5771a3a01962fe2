from __future__ import annotations

from dataclasses import dataclass

from chassis.core import Instance


@dataclass(slots=True)
class CallInfo:
    """How a call went; in ``response.extensions["chassis"]``.

    :param service: the service asked.
    :param instance: the instance that gave this answer, or whose attempt ended in an error last.
    :param attempts: how many attempts were made, the last one included.
    :param hedged: whether a slow attempt got another one beside it.
    """

    service: str
    instance: Instance | None = None
    attempts: int = 0
    hedged: bool = False
