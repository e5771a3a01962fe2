from __future__ import annotations


def serve_dev_agent(*, host: str, port: int) -> None:
    """Serve the development agent until told to stop.

    :raises ConfigError: the port cannot be used.
    """
    from chassis.devagent import run

    run(host=host, port=port)
