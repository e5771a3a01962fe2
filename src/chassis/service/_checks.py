"""Health checks of what the service goes by: its settings, and the registry."""

from __future__ import annotations

from collections.abc import Callable

from chassis.config import Configuration
from chassis.health import Health, Unhealthy


def register_checks(
    health: Health, configuration: Configuration, unregistered: Callable[[], str] | None
) -> Callable[[], None]:
    """Check whether what the service goes by is still told. Not critical: what is known goes on being used.

    :param unregistered: what keeps the process from being found in Consul, "" if nothing does; None where
        no Consul is configured.
    :returns: what takes the checks away again.
    """

    def troubles(*, of_consul: bool) -> list[str]:
        """The details of the sources in trouble that Consul does not answer for, or of all others."""
        return [
            each["detail"]
            for name, each in configuration.describe()["sources"].items()
            if each["bad"] and of_consul is (name.startswith("consul ") and each["state"] == "unreachable")
        ]

    # Coroutines, since they are run at once, and a plain function only when its thread has started.
    async def configuration_is_taken() -> None:
        for trouble in troubles(of_consul=False):
            raise Unhealthy(trouble)

    undo = [health.check("configuration", configuration_is_taken, critical=False, ttl=1.0)]
    if unregistered is not None:

        async def consul_answers() -> None:
            for trouble in (unregistered(), *troubles(of_consul=True)):
                if trouble:
                    raise Unhealthy(trouble)

        undo.append(health.check("consul", consul_answers, critical=False, ttl=1.0))

    def remove() -> None:
        for each in undo:
            each()

    return remove
