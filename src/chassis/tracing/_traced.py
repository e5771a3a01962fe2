from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, TypeVar, overload

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import Span

from chassis.core.functions import is_async_callable
from chassis.tracing._span import begin_internal_span, fail

F = TypeVar("F", bound=Callable[..., Any])
_END: Any = object()


@overload
def traced(name: F) -> F: ...
@overload
def traced(name: str | None = None) -> Callable[[F], F]: ...
def traced(name: Any = None) -> Any:
    """Give each call of a function a span of its own: ``@traced`` or ``@traced("price.load")``.

    For plain, async, generator and async generator functions, class and static methods. A generator's span lasts from its
    first item to its end, and is current only while the generator runs, not while its consumer
    does. An error marks the span as failed with the error's type.

    :param name: the span's name; the function's qualified name if left out.
    """
    if name is None or isinstance(name, str):
        return lambda function: _decorate(function, name)
    return _decorate(name, None)


def _name_of(function: Any) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__qualname__", type(function).__qualname__)


class _Around:
    """Makes a span current for the length of a block; the block's error marks it as failed."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: Span) -> None:
        self._span = span

    def __enter__(self) -> None:
        self._token = otel_context.attach(trace.set_span_in_context(self._span))

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        otel_context.detach(self._token)
        if error is not None and not isinstance(error, GeneratorExit | StopIteration | StopAsyncIteration):
            fail(self._span, error)


def _decorate(function: Any, name: str | None) -> Any:
    if isinstance(function, classmethod | staticmethod):
        return type(function)(_decorate(function.__func__, name))
    name = name or _name_of(function)
    inner = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    wrapper: Callable[..., Any]
    if inspect.isasyncgenfunction(inner):

        @functools.wraps(function)
        async def traced_async_generator(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
            span = begin_internal_span(name)
            generator = function(*args, **kwargs)
            try:
                step: Any = generator.asend(None)
                while True:
                    with _Around(span):
                        item = await step
                    try:
                        step = generator.asend((yield item))
                    except GeneratorExit:
                        raise
                    except BaseException as error:  # noqa: BLE001 - forwarded to the generator
                        step = generator.athrow(error)
            except StopAsyncIteration:
                return
            finally:
                with _Around(span):
                    await generator.aclose()
                span.end()

        wrapper = traced_async_generator
    elif inspect.isgeneratorfunction(inner):

        @functools.wraps(function)
        def traced_generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            span = begin_internal_span(name)
            generator = function(*args, **kwargs)
            try:
                step: Callable[[], Any] = functools.partial(generator.send, None)
                while True:
                    with _Around(span):
                        item = step()
                    try:
                        step = functools.partial(generator.send, (yield item))
                    except GeneratorExit:
                        raise
                    except BaseException as error:  # noqa: BLE001 - forwarded to the generator
                        step = functools.partial(generator.throw, error)
            except StopIteration as end:
                return end.value
            finally:
                with _Around(span):
                    generator.close()
                span.end()

        wrapper = traced_generator
    elif is_async_callable(function):

        @functools.wraps(function)
        async def traced_async(*args: Any, **kwargs: Any) -> Any:
            span = begin_internal_span(name)
            try:
                with _Around(span):
                    return await function(*args, **kwargs)
            finally:
                span.end()

        wrapper = traced_async
    else:

        @functools.wraps(function)
        def traced_call(*args: Any, **kwargs: Any) -> Any:
            span = begin_internal_span(name)
            try:
                with _Around(span):
                    return function(*args, **kwargs)
            finally:
                span.end()

        wrapper = traced_call
    return wrapper
