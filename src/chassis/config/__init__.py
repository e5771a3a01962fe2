"""Settings from code, file, remote documents, environment and command line: typed, live, with origins.

A :class:`Configuration` puts the sources over one another and watches them; a :class:`Settings`
handle gives one table of them as a frozen, validated object that is always the newest good one.
"""

from chassis.config._build import apply, build, parse_seconds
from chassis.config._configuration import Configuration
from chassis.config._errors import ConfigErrors, ConfigUnavailable
from chassis.config._events import (
    ConfigCallbackFailed,
    ConfigChanged,
    ConfigRejected,
    ConfigSourceLost,
    ConfigSourceRestored,
    ConfigUnknown,
)
from chassis.config._layers import lookup
from chassis.config._settings import Settings
from chassis.config._sources import Absent, FileSource, Found, MemorySource, Reading, Source, Unreachable

__all__ = [
    "Absent",
    "ConfigCallbackFailed",
    "ConfigChanged",
    "ConfigErrors",
    "ConfigRejected",
    "ConfigSourceLost",
    "ConfigSourceRestored",
    "ConfigUnavailable",
    "ConfigUnknown",
    "Configuration",
    "FileSource",
    "Found",
    "MemorySource",
    "Reading",
    "Settings",
    "Source",
    "Unreachable",
    "apply",
    "build",
    "lookup",
    "parse_seconds",
]
