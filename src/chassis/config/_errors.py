from __future__ import annotations

from collections.abc import Sequence

from chassis.core.errors import ConfigError


class ConfigErrors(ConfigError):
    """Several settings cannot be used; printed one a line.

    :param errors: each with its setting, origin and remedy.
    """

    def __init__(self, errors: Sequence[ConfigError]) -> None:
        super().__init__(f"{len(errors)} settings cannot be used")
        self.errors = tuple(errors)

    def __str__(self) -> str:
        return "\n".join(str(each) for each in self.errors)


class ConfigUnavailable(ConfigError):
    """A setting cannot be had now, through nobody's mistake: a store does not answer. Tried again."""


def raise_all(errors: Sequence[ConfigError]) -> None:
    """Raise nothing, the one error, or all of them as one."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ConfigErrors(errors)


def every(error: ConfigError) -> tuple[ConfigError, ...]:
    """The single errors within ``error``."""
    return error.errors if isinstance(error, ConfigErrors) else (error,)


def is_temporary(error: ConfigError) -> bool:
    """Whether nothing is wrong with the settings themselves."""
    return all(isinstance(each, ConfigUnavailable) for each in every(error))
