"""All settings of a configuration: made together from one set of documents, and put into use together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from chassis.config._errors import ConfigUnavailable, every, raise_all
from chassis.config._events import ConfigChanged, ConfigUnknown
from chassis.config._machine import Documents
from chassis.config._prepare import Inputs, Prepared, Wanted, prepare
from chassis.config._settings import Settings, View
from chassis.core.contracts import Secrets, Subscription
from chassis.core.errors import ConfigError
from chassis.core.events import events


class Handles:
    """The handles on settings, and the secrets that what they show refers to.

    :param inputs: what settings are made of beside the documents, as it is now.
    :param rotated: called when one of those secrets has changed.
    """

    def __init__(
        self, secrets: Secrets | None, inputs: Callable[[], Inputs], rotated: Callable[[], None]
    ) -> None:
        self.all: list[Settings[Any]] = []
        self._secrets = secrets
        self._inputs = inputs
        self._rotated = rotated
        self._followed: dict[str, Subscription] = {}

    async def prepare(self, documents: Documents) -> list[tuple[Settings[Any], Prepared]]:
        """All settings in use, made of ``documents``.

        :raises ConfigError: what cannot be used of any of them.
        """
        found: list[tuple[Settings[Any], Prepared]] = []
        errors: list[ConfigError] = []
        for handle in self.all:
            if handle._view is None:
                continue
            try:
                found.append((handle, await self._prepared(handle, documents)))
            except ConfigError as error:
                errors.extend(every(error))
        raise_all(errors)
        return found

    async def fill(self, handle: Settings[Any], documents: Documents) -> None:
        """Give a handle its first settings.

        :raises ConfigError: they cannot be used, or had now.
        """
        try:
            prepared = await self._prepared(handle, documents)
        except ConfigError as error:
            first = every(error)[0]
            handle._pending = first if isinstance(first, ConfigUnavailable) else None
            raise
        handle._view = View(prepared.value, prepared.merged, 0, prepared.references)
        handle._pending = None
        self._follow()
        for each in prepared.unknown:
            events.emit(ConfigUnknown(subject=each.name, suggestion=each.suggestion or ""))

    def commit(self, prepared: list[tuple[Settings[Any], Prepared]]) -> None:
        """Put new settings into use, all at once, and then tell of them."""
        told: list[tuple[Settings[Any], View[Any], View[Any]]] = []
        for handle, each in prepared:
            old = handle._view
            if old is None or not handle._changed(old.value, each.value):
                # The same values, perhaps from elsewhere: the object in use stays the one it is.
                value, generation = (each.value, 0) if old is None else (old.value, old.generation)
                handle._view = View(value, each.merged, generation, each.references)
                continue
            new = View(each.value, each.merged, old.generation + 1, each.references)
            handle._view = new
            told.append((handle, old, new))
        self._follow()
        for handle, old, new in told:
            changed = handle._changed(old.value, new.value)
            origins = tuple(handle.origin(path) for path in changed)
            events.emit(
                ConfigChanged(
                    subject=handle._name, settings=changed, origins=origins, generation=new.generation
                )
            )
            for subscriber in handle._subscribers:
                subscriber.tell(old.value, new.value)

    def unfollow(self) -> None:
        """Follow no secret any more."""
        followed, self._followed = self._followed, {}
        for subscription in followed.values():
            subscription.close()

    def after_fork(self) -> None:
        """What followed the secrets is a thread of the parent's."""
        self._followed = {}
        for handle in self.all:
            handle._after_fork()

    def describe(self) -> dict[str, Any]:
        """How every handle stands."""
        return {
            each._name: {
                "loaded": each.loaded,
                "generation": each.generation if each.loaded else None,
                "bad": each._pending is not None,
                "detail": str(each._pending or ("in use" if each.loaded else "not read yet")),
            }
            for each in self.all
        }

    async def _prepared(self, handle: Settings[Any], documents: Documents) -> Prepared:
        """A handle's settings, validated and seen by its checks."""
        wanted = Wanted(
            type_=handle._type,
            table=handle._table,
            prefix=handle._prefix,
            hint=handle._hint,
            strict=handle._strict,
        )
        prepared = await prepare(wanted, self._inputs(), documents)
        # The checks may ask where settings came from that are not in use yet.
        handle._judged = prepared.merged
        try:
            for check in handle._checks:
                _run_check(check, prepared.value)
        finally:
            handle._judged = None
        return prepared

    def _follow(self) -> None:
        """Follow exactly the secrets that settings in use refer to."""
        used = {each for handle in self.all if handle._view for each in handle._view.references}
        for reference in self._followed.keys() - used:
            self._followed.pop(reference).close()
        if self._secrets is not None:
            for reference in used - self._followed.keys():
                self._followed[reference] = self._secrets.subscribe(reference, self._rotated)


def _run_check(check: Callable[[Any], Any], value: Any) -> None:
    try:
        check(value)
    except ConfigError:
        raise
    except Exception as error:
        name = getattr(check, "__qualname__", type(check).__name__)
        raise ConfigError(f"the check {name} raised {type(error).__name__}") from error
