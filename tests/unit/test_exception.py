# SPDX-License-Identifier: Apache-2.0
"""Errors keep their class, code, hint and details over the journal and over the RPC transport."""

from __future__ import annotations

import importlib
import pickle
import pkgutil

import pytest
from oslo_messaging._drivers import common

import volmgr
from volmgr import exception
from volmgr.rpc.transport import REMOTE_ERRORS

ALL = [cls for cls in exception._subclasses(exception.VolmgrError) if cls.__module__ == exception.__name__]


def test_codes_are_unique() -> None:
    codes = [cls.code for cls in ALL]
    assert len(codes) == len(set(codes))
    assert [code for code in codes if not code.startswith("volmgr.")] == []


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_journal_form_gives_the_same_error_back(cls: type[exception.VolmgrError]) -> None:
    error = cls("it broke", hint="mend it", id="x", number=3)
    found = exception.from_primitive(exception.to_primitive(error))
    assert type(found) is cls
    assert (found.message, found.hint, found.details) == ("it broke", "mend it", {"id": "x", "number": 3})
    assert pickle.loads(pickle.dumps(error)).details == error.details


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_errors_cross_the_transport_as_their_own_class(cls: type[exception.VolmgrError]) -> None:
    try:
        raise cls("it broke", hint="mend it", id="x")
    except exception.VolmgrError as error:
        data = common.serialize_remote_exception((type(error), error, error.__traceback__))
    found = common.deserialize_remote_exception(data, ["volmgr.exception"])
    assert isinstance(found, cls)
    assert (found.message, found.hint, found.details) == ("it broke", "mend it", {"id": "x"})


def test_unknown_code_falls_back_to_the_nearest_remedy() -> None:
    assert exception.by_code("volmgr.busy.of_a_later_version") is exception.Busy
    assert exception.by_code("other") is exception.VolmgrError


def test_foreign_errors_keep_type_and_text_only() -> None:
    found = exception.to_primitive(ValueError("no"))
    assert found["message"] == "ValueError: no"
    assert "Traceback" not in str(found)


def test_sentence_is_filled_from_details() -> None:
    error = exception.TooBig(size=70000, limit=65536)
    assert error.message == "70000 GiB is more than max_volume_size, 65536 GiB"
    assert "65536" in error.hint


def test_every_error_is_one_that_a_client_can_raise_again() -> None:
    for info in pkgutil.walk_packages(volmgr.__path__, "volmgr."):
        if not info.name.startswith(("volmgr.testing", "volmgr.db.migrations")) and not info.name.endswith("__main__"):
            importlib.import_module(info.name)
    ours = [cls for cls in exception._subclasses(exception.VolmgrError) if cls.__module__.startswith("volmgr.")]
    assert {cls.__module__ for cls in ours} <= {*REMOTE_ERRORS, "volmgr.testing.servers.base"}
