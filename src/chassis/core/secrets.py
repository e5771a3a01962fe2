"""Secret values that do not show themselves, and how stores of them answer."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from chassis.core.errors import ChassisError

MASK = "**********"


class Secret:
    """A secret text: masked wherever it is printed, given out by :meth:`reveal` alone.

    Two are equal when their texts are, compared in constant time. It is not pickled and not copied
    into dumps, so that a secret leaves the process only where somebody asked for that. Usable as a
    field's type in dataclasses and pydantic models.

    :param value: the secret itself.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The secret itself."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret('{MASK}')"

    def __str__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return MASK

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled; send what .reveal() returns if that is meant")

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: Any) -> Secret:
        return self

    # pydantic asks a type for its schema by this name; the schema is a plain dictionary, so that
    # this module needs no pydantic.

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> dict[str, Any]:
        """A string or a Secret; dumped masked."""
        return {
            "type": "function-plain",
            "function": {"type": "no-info", "function": cls._validate},
            "serialization": {"type": "to-string", "when_used": "always"},
        }

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        """As for any password."""
        return {"type": "string", "format": "password", "writeOnly": True}

    @classmethod
    def _validate(cls, value: Any) -> Secret:
        if isinstance(value, Secret):
            return value
        if isinstance(value, str):
            return cls(value)
        raise ValueError("a secret must be a text")


class SecretError(ChassisError):
    """A secret cannot be had. The message names the reference, never a value.

    :param permanent: whether asking again is pointless until somebody changes something: the path
        is wrong, the token may not read it. False while the store merely does not answer.
    """

    def __init__(self, message: str, *, permanent: bool) -> None:
        super().__init__(message)
        self.permanent = permanent


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretVersion:
    """What a store holds at one path now.

    :param values: the secrets by field name; a store of single values uses the one name "".
    :param version: the store's own word for this state, to be shown; not derived from the values.
    """

    values: Mapping[str, Secret] = field(hash=False)
    version: str
