"""Where the instances of a service are.

A *source* (static addresses, a registry in memory; Consul and DNS are adapters) tells listeners of
immutable snapshots. What every source needs is here: topics that tell listeners in order, watchers
that run for as long as somebody listens, and pure machines that decide what to believe
(:class:`LastKnownGood`), what to ask next (:class:`WatchIndex`, :class:`ChurnLimit`, :class:`Backoff`)
and how to stay registered (:class:`RegistrationMachine`).
"""

from chassis.discovery._addresses import is_host, parse_urls
from chassis.discovery._backoff import Backoff
from chassis.discovery._composite import CompositeDiscovery, MergedDiscovery
from chassis.discovery._events import (
    AddressShared,
    Deregistered,
    DiscoveryExpired,
    DiscoveryRecovered,
    DiscoveryStale,
    EmptyAnswerAccepted,
    EmptyAnswerHeld,
    EntriesSkipped,
    InstancesChanged,
    InstancesHeld,
    MaintenanceBegun,
    MaintenanceEnded,
    RegistrationConfirmed,
    RegistrationDrifted,
    RegistrationLost,
    RegistrationRefused,
    RegistrationUnreachable,
    RegistryCrowded,
    SnapshotFileUnusable,
    SnapshotRestored,
    WatchFailed,
    WatchLimitNear,
)
from chassis.discovery._file import FileDiscovery
from chassis.discovery._last_known_good import LastKnownGood, Step, count_fit
from chassis.discovery._memory import MemoryDiscovery, MemoryRegistration
from chassis.discovery._registration import RegistrationMachine, Task, check_registration, readiness
from chassis.discovery._snapshot_files import SnapshotFile, SnapshotKeeper
from chassis.discovery._static import StaticDiscovery
from chassis.discovery._topic import Listening, Topic
from chassis.discovery._watch_index import ChurnLimit, Wake, WatchIndex
from chassis.discovery._watches import Watches

__all__ = [
    "AddressShared",
    "Backoff",
    "ChurnLimit",
    "CompositeDiscovery",
    "Deregistered",
    "DiscoveryExpired",
    "DiscoveryRecovered",
    "DiscoveryStale",
    "EmptyAnswerAccepted",
    "EmptyAnswerHeld",
    "EntriesSkipped",
    "FileDiscovery",
    "InstancesChanged",
    "InstancesHeld",
    "LastKnownGood",
    "Listening",
    "MaintenanceBegun",
    "MaintenanceEnded",
    "MemoryDiscovery",
    "MemoryRegistration",
    "MergedDiscovery",
    "RegistrationConfirmed",
    "RegistrationDrifted",
    "RegistrationLost",
    "RegistrationMachine",
    "RegistrationRefused",
    "RegistrationUnreachable",
    "RegistryCrowded",
    "SnapshotFile",
    "SnapshotFileUnusable",
    "SnapshotKeeper",
    "SnapshotRestored",
    "StaticDiscovery",
    "Step",
    "Task",
    "Topic",
    "Wake",
    "WatchFailed",
    "WatchIndex",
    "WatchLimitNear",
    "Watches",
    "check_registration",
    "count_fit",
    "is_host",
    "parse_urls",
    "readiness",
]
