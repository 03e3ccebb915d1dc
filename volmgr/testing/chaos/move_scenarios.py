# SPDX-License-Identifier: Apache-2.0
"""Stories of a volume's type, place, owner and replica."""

from __future__ import annotations

from volmgr.testing.chaos.story import MARK, MARKED, WITH_SNAPSHOT, Call, Scenario, create, fails

TYPE = Call("type_create", {"type_id": "@c", "name": "@c"})
REPLICATED = Call("type_create", {"type_id": "@c", "name": "@c", "extra_specs": {"replication": "<is> True"}})
RETYPE = Call("retype", {"volume_id": "@v", "new_type_id": "@c"})
#: a pair places what is made on its first worker.
AT_FIRST = MARKED
MIGRATE = Call("migrate_volume", {"volume_id": "@v", "host": "node@two"})
FAR = Call("migrate_volume", {"volume_id": "@v", "host": "other@two"})
COPY = create("@c", size=1, host="node@two")
COMPLETE = Call("migrate_volume_completion", {"volume_id": "@v", "new_volume_id": "@c"})
ACCEPT = Call("accept_transfer", {"volume_id": "@v", "new_user": "other", "new_project": "other"})
#: nobody asks by himself how the replicas are.
UNASKED = (("default", {"backend_stats_polling_interval": 3600}),)

#: stories of a volume's type, place, owner and replica.
OF_MOVES: tuple[Scenario, ...] = (
    Scenario("retype", "retype", (*MARKED, TYPE), RETYPE, lean=True, inside=(("retype", "before"),)),
    Scenario(
        "retype-fails",
        "retype",
        (*MARKED, TYPE),
        RETYPE,
        faults=({**fails("retype", "@v", "before"), "times": 1},),
        since="retype/retype/undo",
        lean=True,
    ),
    Scenario("migrate", "migrate_volume", AT_FIRST, MIGRATE, pair=True, lean=True),
    Scenario(
        "migrate-by-the-driver", "migrate_volume", AT_FIRST, MIGRATE, pair=True, lean=True, options=(("shared", True),)
    ),
    Scenario(
        "migrate-fails-while-copying",
        "migrate_volume",
        AT_FIRST,
        MIGRATE,
        faults=({**fails("before_volume_copy", "@v", "before"), "times": 1},),
        since="migrate_volume/copy/undo",
        pair=True,
        lean=True,
    ),
    Scenario("receive", "receive_volume", AT_FIRST, MIGRATE, pair=True),
    Scenario(
        "receive-fails",
        "receive_volume",
        AT_FIRST,
        MIGRATE,
        faults=({**fails("create_volume", "@v"), "times": 1},),
        since="receive_volume/build/undo",
        pair=True,
    ),
    Scenario("migrate-far", "migrate_volume", AT_FIRST, FAR, pair=True, options=(("far", True),), extended=True),
    Scenario(
        "migrate-far-fails-once-copied",
        "migrate_volume",
        AT_FIRST,
        FAR,
        faults=({**fails("after_volume_copy", "@v", "before"), "times": 1},),
        since="migrate_volume/copy/undo",
        pair=True,
        options=(("far", True),),
        extended=True,
    ),
    Scenario("receive-far", "receive_volume", AT_FIRST, FAR, pair=True, options=(("far", True),), extended=True),
    Scenario(
        "complete-migration",
        "migrate_volume_completion",
        (*AT_FIRST, COPY, Call(MARK, {"volume": "@c", "text": "copied"})),
        COMPLETE,
        pair=True,
        lean=True,
    ),
    Scenario(
        "complete-migration-with-an-error",
        "migrate_volume_completion",
        (*AT_FIRST, COPY),
        Call("migrate_volume_completion", {**COMPLETE.arguments, "error": True}),
        pair=True,
    ),
    Scenario(
        "update-migrated",
        "update_migrated_volume",
        MARKED,
        Call("update_migrated_volume", {"volume_id": "@v", "new_volume_id": "@c"}),
        lean=True,
    ),
    Scenario("accept-transfer", "accept_transfer", WITH_SNAPSHOT, ACCEPT, inside=(("accept_transfer", "before"),)),
    Scenario(
        "accept-transfer-fails",
        "accept_transfer",
        WITH_SNAPSHOT,
        ACCEPT,
        faults=({**fails("accept_transfer", "@v", "before"), "times": 1},),
        since="accept_transfer/give/undo",
        lean=True,
    ),
    Scenario(
        "promote",
        "promote_replica",
        (REPLICATED, create("@v", size=1, volume_type="@c"), Call(MARK, {"volume": "@v", "text": "first"})),
        Call("promote_replica", {"volume_id": "@v"}),
        inside=(("promote_replica", "building"), ("promote_replica", "after")),
        options=UNASKED,
        lean=True,
    ),
    Scenario(
        "reenable",
        "reenable_replication",
        (REPLICATED, create("@v", size=1, volume_type="@c"), Call("promote_replica", {"volume_id": "@v"})),
        Call("reenable_replication", {"volume_id": "@v"}),
        options=UNASKED,
        lean=True,
    ),
    Scenario("failover", "failover_host", (), Call("failover_host"), inside=(("failover_host", "after"),)),
    Scenario(
        "failover-fails",
        "failover_host",
        (),
        Call("failover_host"),
        faults=({**fails("failover_host", "", "after"), "times": 1, "id": "@v"},),
        since="failover_host/switch/undo",
        lean=True,
    ),
)
