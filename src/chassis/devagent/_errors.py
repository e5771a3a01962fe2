"""What the agent refuses, as the HTTP answer it becomes."""

from __future__ import annotations

from typing import NoReturn


class AgentError(Exception):
    """A request the agent refuses; its text is the whole body, as Consul's is.

    :param status: the HTTP status.
    :param text: one sentence for whoever sent the request.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


def bad_request(text: str) -> NoReturn:
    """Refuse a request that Consul would refuse too."""
    raise AgentError(400, text)


def lacking(what: str) -> NoReturn:
    """Refuse what Consul can do and this agent cannot: never with a body that looks like an answer."""
    raise AgentError(501, f"chassis dev does not have {what}: run a real Consul agent for it")
