# SPDX-License-Identifier: Apache-2.0
"""The calls as data: which there are, what they take, what they answer. Knows no volume and no socket."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jsonschema


class ApiError(Exception):
    """An error as StorPool answers it.

    :param name: one of the errors of ``calls.json``, or any other with ``status``.
    """

    def __init__(self, name: str, descr: str, *, status: int | None = None, transient: bool | None = None) -> None:
        super().__init__(f"{name}: {descr}")
        known = contract().errors.get(name, {"status": 500})
        self.name = name
        self.descr = descr
        self.status = int(known["status"]) if status is None else status
        self.transient = bool(known.get("transient")) if transient is None else transient

    def reply(self) -> dict[str, Any]:
        """Return the body of the reply."""
        error: dict[str, Any] = {"name": self.name, "descr": self.descr}
        if self.transient:
            error["transient"] = True
        return {"error": error}


@dataclass(frozen=True)
class Call:
    """One call of the API. ``argument`` is what stands at the end of its path, if anything does."""

    name: str
    method: str
    path: str
    source: str
    argument: str | None
    request: Mapping[str, Any] | None
    response: Mapping[str, Any]


@dataclass(frozen=True)
class Contract:
    """Everything that ``calls.json`` says."""

    sources: Mapping[str, str]
    errors: Mapping[str, Mapping[str, Any]]
    definitions: Mapping[str, Any]
    calls: Mapping[str, Call]

    def find(self, method: str, path: str) -> tuple[Call, str]:
        """Return the call that a request is, and the argument in its path.

        :raises ApiError: there is no such call, or its argument is not well formed.
        """
        for call in self.calls.values():
            head, brace, _ = call.path.partition("{")
            if not brace:
                if path == head and method == call.method:
                    return call, ""
            elif path.startswith(head) and method == call.method:
                argument = path[len(head) :]
                self.check({"$ref": f"#/$defs/{call.argument}"}, argument, call.name)
                return call, argument
        raise ApiError("unknownCall", f"There is no call {method} {path}")

    def check_request(self, call: Call, body: bytes) -> Any:
        """Return the request's JSON.

        :raises ApiError: it is not what the call takes.
        """
        if call.request is None:
            if body:
                raise ApiError("invalidParam", f"{call.name} takes no data")
            return None
        try:
            value = json.loads(body)
        except ValueError as error:
            raise ApiError("invalidParam", f"{call.name}: the data are no JSON: {error}") from error
        self.check(call.request, value, call.name)
        return value

    def check(self, schema: Mapping[str, Any], value: Any, what: str) -> None:
        """Return if ``value`` fits ``schema``.

        :raises ApiError: it does not.
        """
        problem = next(self.problems(schema, value), None)
        if problem is not None:
            place = "/".join(str(part) for part in problem.absolute_path)
            raise ApiError("invalidParam", f"{what}: {place or 'the data'}: {problem.message}")

    def problems(self, schema: Mapping[str, Any], value: Any) -> Any:
        """Return an iterator over what of ``value`` does not fit ``schema``."""
        return jsonschema.Draft202012Validator({"$defs": self.definitions, **schema}).iter_errors(value)


@functools.cache
def contract() -> Contract:
    """Return the contract; it is read once."""
    data = json.loads(resources.files(__package__).joinpath("calls.json").read_text())
    calls = {
        name: Call(
            name,
            item["method"],
            item["path"],
            item["source"],
            item.get("argument"),
            item.get("request"),
            item["response"],
        )
        for name, item in data["calls"].items()
    }
    return Contract(data["sources"], data["errors"], data["$defs"], calls)


def source_keys(source: str) -> list[str]:
    """Return the keys of ``sources`` that a field's source refers to."""
    return re.findall(r"(?:^|[,;] )([a-z]+)(?=:|$)", source)
