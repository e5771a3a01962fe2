"""Whose overrides hold where several give them: two services in one process, say."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from chassis.core import ConfigError, PolicyRegistry


@dataclass(eq=False)
class Knob:
    name: str
    kind: str = "knob"
    defaults: int = 1
    options: int = 1

    def describe(self) -> dict[str, object]:
        return {"options": self.options}

    def reconfigure(self, options: int) -> None:
        self.options = options


def test_overrides_of_one_leave_those_of_another() -> None:
    registry, a, b = PolicyRegistry(), Knob("a"), Knob("b")
    registry.register(a)
    registry.register(b)
    registry.override({"knob:a": lambda default: 2}, by="first")
    registry.override({"knob:b": lambda default: 3}, by="second")
    assert (a.options, b.options) == (2, 3)
    registry.override({"knob:a": lambda default: 4}, by="second")
    assert (a.options, b.options) == (4, 1)
    registry.override({}, by="second")
    assert (a.options, b.options) == (2, 1)


def test_what_is_refused_leaves_the_overrides_of_before() -> None:
    registry, a = PolicyRegistry(), Knob("a")
    registry.register(a)
    registry.override({"knob:late": lambda default: 2}, by="first")

    def bad(default: int) -> int:
        raise ConfigError("bad")

    with pytest.raises(ConfigError):
        registry.override({"knob:a": bad}, by="first")
    late = Knob("late")
    registry.register(late)
    assert (a.options, late.options) == (1, 2)


def test_a_policy_that_cannot_take_what_waits_for_it_leaves_its_name_free() -> None:
    """Its construction raises; when the settings are mended another one can be made."""
    registry, refused, mended = PolicyRegistry(), Knob("a"), Knob("a")

    def bad(default: int) -> int:
        raise ConfigError("bad")

    registry.override({"knob:a": bad})
    with pytest.raises(ConfigError):
        registry.register(refused)
    assert registry.get("knob:a") is None
    registry.override({"knob:a": lambda default: 5})
    registry.register(mended)
    assert mended.options == 5
