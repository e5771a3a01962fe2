"""What of a service's client is described and configured by name, beside the client's own options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from chassis.breaker import BreakerOptions
from chassis.client._instance import InstanceState
from chassis.core import Freshness
from chassis.core.options import check_options
from chassis.loadbalancing import BalancingOptions, EndpointSet
from chassis.retries import BudgetOptions, RetryBudget

_CONSECUTIVE_IN_DOUBT = 2


class BreakerFamily:
    """The breakers of one service's instances, described by instance and configured as one.

    While discovery is silent, what it told may be long gone, and nobody takes an instance off the list:
    so two failures in a row are enough to open a breaker, where failures in a row count at all.

    :param endpoints: those there are.
    :ivar options: as configured.
    """

    kind = "client"

    def __init__(self, service: str, options: BreakerOptions, endpoints: EndpointSet[InstanceState]) -> None:
        self.name = f"{service}/breaker"
        self.defaults = options
        self.options = options
        self._in_doubt = False
        self._endpoints = endpoints

    @property
    def effective(self) -> BreakerOptions:
        """The options the breakers follow now."""
        configured = self.options.consecutive_failures
        if not self._in_doubt or configured is None:
            return self.options
        return replace(self.options, consecutive_failures=min(configured, _CONSECUTIVE_IN_DOUBT))

    def describe(self) -> Mapping[str, Any]:
        """Each instance's breaker, and the options: as configured, and as followed now."""
        return {
            "options": self.options.describe(),
            "effective": self.effective.describe(),
            "instances": {
                name: each.state.breaker.describe() for name, each in self._endpoints.by_name().items()
            },
        }

    def reconfigure(self, options: BreakerOptions) -> None:
        """Give all of them, and those to come, other options."""
        check_options(options, self.defaults)
        self.options = options
        self.apply()

    def follow(self, freshness: Freshness) -> None:
        """Take notice of whether what discovery tells is fresh."""
        in_doubt = freshness is not Freshness.FRESH
        if in_doubt != self._in_doubt:
            self._in_doubt = in_doubt
            self.apply()

    def apply(self) -> None:
        """Have all breakers there are follow the options of now."""
        followed = None
        while followed != self.effective:  # else others came meanwhile, and these may have gone over them
            followed = self.effective
            for each in self._endpoints.endpoints():
                each.state.breaker.reconfigure(followed)


class BalancingPolicy:
    """How the calls to one service are spread over its instances.

    :param endpoints: the set it configures.
    :param options: as given in code.
    """

    kind = "client"

    def __init__(
        self, service: str, options: BalancingOptions, endpoints: EndpointSet[InstanceState]
    ) -> None:
        self.name = f"{service}/balancing"
        self.defaults = options
        self._options = options
        self._zone = ""
        self._endpoints = endpoints

    def describe(self) -> Mapping[str, Any]:
        """The policy, and how each instance stands."""
        return self._endpoints.describe()

    def reconfigure(self, options: BalancingOptions) -> None:
        """Choose by other options; what is known of each instance is kept."""
        check_options(options, self.defaults)
        self._options = options
        self._endpoints.reconfigure(replace(options, zone=options.zone or self._zone))

    def locate(self, zone: str) -> None:
        """Say which zone this process is in: it is preferred where the options name none."""
        if zone != self._zone:
            self._zone = zone
            self.reconfigure(self._options)


class BudgetPolicy:
    """One service's retry budget, as a policy that is described and configured by name.

    It pays for every further attempt, those that fail over from a refused connection included.
    """

    kind = "client"

    def __init__(self, service: str) -> None:
        self.name = f"{service}/budget"
        self.defaults = BudgetOptions()
        self.budget = RetryBudget(options=self.defaults)

    def describe(self) -> Mapping[str, Any]:
        """What is left, who waits, what was refused, and the options."""
        return self.budget.describe()

    def reconfigure(self, options: BudgetOptions) -> None:
        """Follow other options; what was counted is kept."""
        self.budget.reconfigure(options)
