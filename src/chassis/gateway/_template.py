"""Path templates: ``/catalog/{rest:path}`` in a route, ``/for/{user}`` in a part."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from chassis.core import ConfigError

_VARIABLE = re.compile(r"\{([a-z_][a-z0-9_]*)(:path)?\}")


@dataclass(frozen=True, slots=True)
class Template:
    """A route's path, taken apart.

    :param text: as it was written.
    :param segments: literals as strings; None where a ``{name}`` stands.
    :param names: the variables' names, in order, that of ``rest`` last.
    :param rest: whether it ends with ``{name:path}``, which takes any number of segments, none too.
    """

    text: str
    segments: tuple[str | None, ...]
    names: tuple[str, ...]
    rest: bool


def parse_template(text: str) -> Template:
    """The template that ``text`` writes.

    :raises ConfigError: it is none.
    """
    if not text.startswith("/"):
        raise _not_a_template(text, "it does not begin with a slash", 'write it as "/orders/{id}"')
    segments: list[str | None] = []
    names: list[str] = []
    rest = False
    parts = text[1:].split("/")
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        variable = _VARIABLE.fullmatch(part)
        if variable is not None:
            if variable[1] in names:
                raise _not_a_template(
                    text, f"{{{variable[1]}}} occurs twice", "give each variable its own name"
                )
            names.append(variable[1])
            if variable[2] is None:
                segments.append(None)
            elif last:
                rest = True
            else:
                raise _not_a_template(
                    text, f"{part} is not at the end", "put it last, or write {name} for one segment"
                )
        elif re.search(r"[{}]", part):
            raise _not_a_template(text, f"{part!r} is no variable", "write {name}, or {name:path} at the end")
        elif not _is_literal(part, last=last):
            raise _not_a_template(
                text, f"{part!r} can be no part of a path", "write it decoded, without dot segments"
            )
        else:
            segments.append(part)
    return Template(text, tuple(segments), tuple(names), rest)


def _is_literal(part: str, *, last: bool) -> bool:
    """Whether a request's decoded segment could be this one."""
    if not part:
        return last
    return re.search(r"[\x00-\x1f\x7f\\#?%;]", part) is None and part not in (".", "..")


def _not_a_template(text: str, why: str, remedy: str) -> ConfigError:
    return ConfigError(f"{text!r} is no path: {why}", setting="path", remedy=remedy)


class Target:
    """A part's path, filled in for each request.

    Every value is encoded whole, so that no value can add a segment, a query or an escape. The
    value of a ``{name:path}`` keeps its slashes.

    :param text: a path and perhaps a query, with ``{name}`` where a value goes.
    :param template: the route's, whose variables are at hand.
    :raises ConfigError: it names another variable, or is no path.
    """

    def __init__(self, text: str, template: Template) -> None:
        if (
            not text.startswith("/")
            or re.search(r"[^\x21-\x7e]|[\\#]", text)
            or "//" in text.partition("?")[0]
        ):
            raise ConfigError(f"{text!r} is no path", setting="path", remedy='write it as "/items?of={user}"')
        # Odd places hold the names.
        pieces = re.split(r"\{([^{}]*)\}", text)
        unknown = [name for name in pieces[1::2] if name not in template.names]
        if unknown or re.search(r"[{}]", "".join(pieces[::2])):
            known = ", ".join(f"{{{name}}}" for name in template.names) or "none"
            what = f"the route has no variable {{{unknown[0]}}}" if unknown else "a brace stands alone"
            raise ConfigError(
                f"{text!r} cannot be filled in: {what}", setting="path", remedy=f"known are: {known}"
            )
        self._pieces = pieces
        self._path_name = template.names[-1] if template.rest else None

    def fill(self, values: Mapping[str, str]) -> bytes:
        """The request target for these values."""
        filled = [
            quote(values[piece], safe="/" if piece == self._path_name else "") if number % 2 else piece
            for number, piece in enumerate(self._pieces)
        ]
        return "".join(filled).encode("ascii")
