"""The words every layer shares: standard library only, no I/O, no event loop.

A component imports these words and never its siblings; what one component needs of another is a
contract here (:mod:`chassis.core.contracts`).
"""

from chassis.core.clock import Clock, monotonic
from chassis.core.contracts import (
    Balancer,
    Candidate,
    Discovery,
    Registered,
    Registrar,
    Registration,
    ServiceSubscription,
    Subscription,
    Upstreams,
)
from chassis.core.deadline import (
    Deadline,
    current_deadline,
    deadline_scope,
    detach_deadline,
    remaining,
)
from chassis.core.errors import (
    BulkheadFull,
    ChassisError,
    CircuitOpen,
    ConfigError,
    DeadlineExceeded,
    DiscoveryError,
    NoInstance,
    Overloaded,
    RateLimited,
    Rejected,
    UpstreamError,
    UpstreamFailure,
)
from chassis.core.events import Event, EventBus, Level, Listener, events
from chassis.core.instances import Freshness, Instance, Reason, Snapshot, Source, Status
from chassis.core.outcomes import Classifier, Outcome, classify_error
from chassis.core.permits import Permit
from chassis.core.pipeline import Pipeline, PipelineOrderDoubted, PipelineWarning
from chassis.core.policies import Admission, Operation, Policy, Role
from chassis.core.registry import NamedPolicy, PolicyRegistry, policies

__all__ = [
    "Admission",
    "Balancer",
    "BulkheadFull",
    "Candidate",
    "ChassisError",
    "CircuitOpen",
    "Classifier",
    "Clock",
    "ConfigError",
    "Deadline",
    "DeadlineExceeded",
    "Discovery",
    "DiscoveryError",
    "Event",
    "EventBus",
    "Freshness",
    "Instance",
    "Level",
    "Listener",
    "NamedPolicy",
    "NoInstance",
    "Operation",
    "Outcome",
    "Overloaded",
    "Permit",
    "Pipeline",
    "PipelineOrderDoubted",
    "PipelineWarning",
    "Policy",
    "PolicyRegistry",
    "RateLimited",
    "Reason",
    "Registered",
    "Registrar",
    "Registration",
    "Rejected",
    "Role",
    "ServiceSubscription",
    "Snapshot",
    "Source",
    "Status",
    "Subscription",
    "UpstreamError",
    "UpstreamFailure",
    "Upstreams",
    "classify_error",
    "current_deadline",
    "deadline_scope",
    "detach_deadline",
    "events",
    "monotonic",
    "policies",
    "remaining",
]
