# SPDX-License-Identifier: Apache-2.0
"""What makes a manager's method an RPC method: every argument checked once, and how it is acknowledged.

A method without one of these decorators cannot be called from outside. This module knows no verb.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable
from typing import Any, TypeVar

from volmgr import exception, validate
from volmgr.db.answered import arrival
from volmgr.validate import Check

F = TypeVar("F", bound=Callable[..., Any])


def _endpoint(function: F, checks: dict[str, Check], *, connects: bool, journalled: bool = False) -> F:
    signature = inspect.signature(function)
    takes_more = any(item.kind is item.VAR_KEYWORD for item in signature.parameters.values())
    known = set(signature.parameters) - {"self", "context"}

    def bound_to(self: Any, context: Any, args: Any, kwargs: Any) -> inspect.BoundArguments:
        for key in kwargs:
            if key in ("self", "context") or (key not in known and not takes_more):
                raise exception.Invalid(f"{validate.shorten(key)} is not an argument of this verb", field=str(key)[:60])
        try:
            bound = signature.bind(self, context, *args, **kwargs)
        except TypeError as error:
            missing = next((name for name in known if f"'{name}'" in str(error)), "arguments")
            raise exception.Invalid(f"The arguments do not fit: {error}", field=missing) from None
        for name, check in checks.items():
            if name in bound.arguments:
                bound.arguments[name] = check(name, bound.arguments[name])
        return bound

    @functools.wraps(function)
    def endpoint(self: Any, context: Any, /, *args: Any, **kwargs: Any) -> Any:
        began, checked = time.monotonic(), dict[str, Any]()
        try:
            bound = bound_to(self, context, args, kwargs)
            context = self.authorise(context, function.__name__, bound.arguments)
            bound.arguments["context"] = context
            if connects:
                self.ready()
                self.visible(context, bound.arguments)
            checked = bound.arguments
            with arrival(None if journalled else context.request_key, function.__name__):
                answer = function(*bound.args, **bound.kwargs)
        except Exception as error:
            self.ended(context, function.__name__, checked, began, error)
            if isinstance(error, exception.LeaseLost):
                # A member of a cluster that ends: another one takes it.
                raise exception.BackendDown(error.message, hint="Send the request again") from error
            raise
        self.ended(context, function.__name__, checked, began)
        return answer

    endpoint.exposed = True  # type: ignore[attr-defined]
    endpoint.level = connects  # type: ignore[attr-defined]
    endpoint.checks = checks  # type: ignore[attr-defined]
    return endpoint  # type: ignore[return-value]


def journalled(function: F) -> F:
    """A changing verb: its arguments are checked by its Operation, its message is acknowledged after admission."""
    endpoint = _endpoint(function, {}, connects=False, journalled=True)
    endpoint.journalled = True  # type: ignore[attr-defined]
    return endpoint


def answered(**checks: Check) -> Callable[[F], F]:
    """A verb that only reads SQL, or steers the journal.

    :param checks: by argument name; every argument must have one.
    """
    return _answering(checks, connects=False)


def connects(**checks: Check) -> Callable[[F], F]:
    """A level-triggered verb: it changes rows and makes the target follow before it answers.

    :param checks: by argument name; every argument must have one.
    """
    return _answering(checks, connects=True)


def _answering(checks: dict[str, Check], *, connects: bool) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        parameters = set(inspect.signature(function).parameters) - {"self", "context"}
        if parameters != set(checks):
            raise TypeError(f"{function.__name__} leaves arguments unchecked: {sorted(parameters ^ set(checks))}")
        return _endpoint(function, checks, connects=connects)

    return decorate
