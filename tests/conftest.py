"""Nothing but the shared fixtures; see tests/support."""

pytest_plugins = ["tests.support.fixtures"]
