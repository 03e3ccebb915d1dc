# SPDX-License-Identifier: Apache-2.0
"""Workers and volume types on every database."""

from __future__ import annotations

import datetime
import threading
from typing import Any

import pytest
import sqlalchemy as sa

from volmgr import exception
from volmgr.db import engine, models, qos, quotas, reservations, services
from volmgr.db import types as volume_types
from volmgr.db.engine import Database

HOST = "h@b"


def register(db: Database, **values: Any) -> None:
    values = {"topic": "volume", "rpc_version": "1.0", "incarnation": "i", **values}
    with db.writer() as conn:
        services.register(conn, HOST, **values)


def seen(db: Database, down_time: float = 60) -> dict[str, Any]:
    with db.reader() as conn:
        return services.get(conn, HOST, down_time)


def age(db: Database, seconds: float) -> None:
    with db.writer() as conn:
        past = engine.utcnow() - datetime.timedelta(seconds=seconds)
        conn.execute(sa.update(models.services).values(updated_at=past))


def test_a_worker_is_up_while_it_beats(database: Database) -> None:
    register(database, capabilities={"free_gb": 1})
    assert seen(database)["up"]
    age(database, 120)
    assert not seen(database)["up"]
    assert seen(database, down_time=3600)["up"]
    with database.reader() as conn:
        assert not services.is_up(conn, HOST, 60)
        assert not services.is_up(conn, "nobody", 60)
    with database.counting() as count, database.writer() as conn:
        services.beat(conn, HOST, state="down", reason="no disk")
    assert count.statements == 1
    found = seen(database)
    assert (found["up"], found["state"], found["reason"]) == (True, "down", "no disk")
    assert found["capabilities"] == {"free_gb": 1}
    with database.writer() as conn:
        services.beat(conn, HOST, capabilities={"free_gb": 2})
    assert seen(database)["capabilities"] == {"free_gb": 2}


def test_what_operators_set_survives_a_restart(database: Database) -> None:
    register(database)
    with database.writer() as conn:
        services.disable(conn, HOST, "new disks")
        services.freeze(conn, HOST)
        services.set_active_backend(conn, HOST, "second")
    register(database, incarnation="j")
    found = seen(database)
    assert (found["incarnation"], found["disabled"], found["disabled_reason"]) == ("j", True, "new disks")
    assert (found["frozen"], found["active_backend_id"]) == (True, "second")
    with database.writer() as conn:
        services.enable(conn, HOST)
        services.thaw(conn, HOST)
    found = seen(database)
    assert (found["disabled"], found["disabled_reason"], found["frozen"]) == (False, None, False)


@pytest.mark.server_database
def test_members_of_a_cluster_start_for_the_first_time_at_once(database: Database) -> None:
    values: dict[str, Any] = {"topic": "volume", "rpc_version": "1.0"}
    waiting = threading.Event()
    other = threading.Thread(target=services.enroll, args=(database, HOST), kwargs={**values, "incarnation": "j"})

    # MariaDB lets an update of the row wait already, PostgreSQL only its insertion.
    waits = "INSERT INTO services" if database.kind == "postgresql" else "UPDATE services"

    def note(_conn: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        if statement.startswith(waits) and threading.current_thread() is other:
            waiting.set()

    sa.event.listen(database.engine, "before_cursor_execute", note)
    with database.writer() as conn:
        services.register(conn, HOST, **values, incarnation="i")
        other.start()
        assert waiting.wait(60)
    other.join(60)
    assert seen(database)["incarnation"] == "j"


def test_a_worker_that_never_was_is_not_found(database: Database) -> None:
    for act in (services.beat, services.enable, services.disable, services.freeze, services.thaw, services.remove):
        with pytest.raises(exception.NotFound), database.writer() as conn:
            act(conn, "nobody")
    with pytest.raises(exception.NotFound):
        seen(database)


def make_type(db: Database, type_id: str = "1", name: str = "gold", **values: Any) -> None:
    with db.writer() as conn:
        volume_types.create(conn, type_id, name, now=engine.utcnow(), **values)


def test_a_type_is_found_by_id_and_by_name(database: Database) -> None:
    make_type(database, extra_specs={"thin": "true"})
    with database.writer() as conn:
        qos.create(conn, "q", "fast", "both", {"total_iops_sec": "5"}, now=engine.utcnow())
        volume_types.set_qos(conn, "1", "q")
    make_type(database, "gold", "other")
    with database.reader() as conn:
        assert volume_types.get(conn, "1") == volume_types.find(conn, "1")
        assert volume_types.find(conn, "gold").name == "other"
        assert volume_types.find(conn, "other").id == "gold"
        assert [item.name for item in volume_types.list_types(conn)] == ["gold", "other"]
        found = volume_types.get(conn, "1")
    assert dict(found.extra_specs) == {"thin": "true"}
    assert found.qos_specs == {"id": "q", "name": "fast", "consumer": "both", "specs": {"total_iops_sec": "5"}}
    with pytest.raises(exception.NotFound), database.reader() as conn:
        volume_types.find(conn, "tin")


def test_two_types_cannot_have_one_name(database: Database) -> None:
    make_type(database)
    make_type(database)  # the same again
    with pytest.raises(exception.AlreadyExists):
        make_type(database, "2")
    with pytest.raises(exception.AlreadyExists):
        make_type(database, "1", "tin")
    make_type(database, "2", "tin")
    with pytest.raises(exception.AlreadyExists), database.writer() as conn:
        volume_types.update(conn, "2", name="gold")
    with pytest.raises(exception.Invalid), database.writer() as conn:
        volume_types.update(conn, "2", id="3")


def test_specs_are_merged(database: Database) -> None:
    make_type(database, extra_specs={"a": "1", "b": "2"})
    with database.writer() as conn:
        assert volume_types.set_specs(conn, "1", {"b": None, "c": "3"}) == {"a": "1", "c": "3"}
    with pytest.raises(exception.NotFound), database.writer() as conn:
        volume_types.set_specs(conn, "2", {})


def test_a_type_that_volumes_have_stays(database: Database) -> None:
    make_type(database)
    with database.writer() as conn:
        conn.execute(
            sa.insert(models.volumes),
            {"id": "v", "size": 1, "status": "available", "volume_type_id": "1", "created_at": engine.utcnow()},
        )
    with pytest.raises(exception.Conflict), database.writer() as conn:
        volume_types.delete(conn, "1")
    with database.writer() as conn:
        conn.execute(sa.delete(models.volumes))
        quotas.set_limits(conn, "p", {"volumes": 5}, volume_type_id="1")
        reservations.make(conn, "r", "p", "1", {"volumes": 2}, expires_at=engine.utcnow(), defaults={})
        assert volume_types.delete(conn, "1")
        assert not volume_types.delete(conn, "1")
    with database.reader() as conn:
        (row,) = quotas.list_quotas(conn, defaults={})
    assert (row["volume_type_id"], row["volumes"]["in_use"]) == (None, 0)


def test_a_type_that_is_held_is_not_removed_beside_it(database: Database) -> None:
    make_type(database)
    outcome: list[bool | str] = []

    def remove() -> None:
        def write() -> bool:
            with database.writer() as conn:
                return volume_types.delete(conn, "1")

        try:
            outcome.append(database.retrying(write))
        except exception.Conflict as error:
            outcome.append(error.code)

    with database.writer() as conn:
        assert volume_types.hold(conn, "1")
        assert not volume_types.hold(conn, "2")
        remover = threading.Thread(target=remove)
        remover.start()
        values = {"id": "v", "size": 1, "status": "available", "volume_type_id": "1", "created_at": engine.utcnow()}
        conn.execute(sa.insert(models.volumes), values)
    remover.join(60)
    assert outcome == ["volmgr.conflict"]


def test_a_qos_that_types_have_stays_unless_forced(database: Database) -> None:
    make_type(database)
    with database.writer() as conn:
        qos.create(conn, "q", "fast", "both", {"a": "1", "b": "2"}, now=engine.utcnow())
        qos.create(conn, "q", "fast", "both", {"a": "1", "b": "2"}, now=engine.utcnow())
        volume_types.set_qos(conn, "1", "q")
        qos.update(conn, "q", consumer="front-end", specs={"a": None, "c": "3"})
        found = qos.shown(conn, "fast")
    assert (found["consumer"], found["specs"], found["volume_types"]) == ("front-end", {"b": "2", "c": "3"}, ["1"])
    for wrong in ({"qos_id": "q", "name": "other"}, {"qos_id": "r", "name": "fast"}):
        with pytest.raises(exception.AlreadyExists), database.writer() as conn:
            qos.create(conn, consumer="both", specs={}, now=engine.utcnow(), **wrong)
    with pytest.raises(exception.Conflict) as refused, database.writer() as conn:
        qos.delete(conn, "q")
    assert "gold" in str(refused.value)
    with database.writer() as conn:
        assert qos.delete(conn, "q", force=True)
        assert not qos.delete(conn, "q")
        assert volume_types.get(conn, "1").qos_specs is None
    with pytest.raises(exception.QosNotFound), database.writer() as conn:
        qos.update(conn, "q", consumer="both")


def test_the_cache_asks_once_until_it_is_old(database: Database) -> None:
    make_type(database, extra_specs={"a": "1"})
    now = [0.0]
    cache = volume_types.Cache(database, max_age=5, clock=lambda: now[0])
    with database.counting() as count:
        assert cache.get(None) is None
        for _ in range(3):
            found = cache.get("1")
            assert found is not None
            assert found.extra_specs == {"a": "1"}
        assert cache.get("2") is cache.get("2") is None
    assert count.statements == 2
    with database.writer() as conn:
        volume_types.set_specs(conn, "1", {"a": "2"})
    now[0] = 5.0
    found = cache.get("1")
    assert found is not None
    assert found.extra_specs == {"a": "2"}
    make_type(database, "2", "tin")
    cache.forget()
    assert cache.get("2") is not None
