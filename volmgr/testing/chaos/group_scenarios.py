# SPDX-License-Identifier: Apache-2.0
"""Stories of consistency groups and their snapshots."""

from __future__ import annotations

from volmgr.testing.chaos.story import CONNECTED, MARK, Call, Scenario, create, fails

GROUP = Call("create_consistencygroup", {"group_id": "@g"})
MEMBER = create("@v", size=1, group_id="@g")
WITH_MEMBERS = (
    GROUP, MEMBER, create("@c", size=1, group_id="@g"), Call(MARK, {"volume": "@v", "text": "first"})
)
SET = Call("create_cgsnapshot", {"cgsnapshot_id": "@k", "group_id": "@g"})
FROM_SET = Call("create_consistencygroup_from_src", {"group_id": "@h", "cgsnapshot_id": "@k"})

#: stories of groups; a failure is struck from the point on at which it differs from the success.
OF_GROUPS: tuple[Scenario, ...] = (
    Scenario("group-create", "create_consistencygroup", (), GROUP, lean=True),
    Scenario(
        "group-create-fails",
        "create_consistencygroup",
        (),
        GROUP,
        faults=(fails("create_consistencygroup", "@g"),),
        since="create_consistencygroup/create/undo",
        lean=True,
    ),
    Scenario(
        "group-update",
        "update_consistencygroup",
        (*WITH_MEMBERS, create("@s", size=1)),
        Call("update_consistencygroup", {"group_id": "@g", "add_volumes": ["@s"], "remove_volumes": ["@c"]}),
        lean=True,
    ),
    Scenario(
        "group-delete",
        "delete_consistencygroup",
        (*WITH_MEMBERS, CONNECTED, Call("terminate_connection", CONNECTED.arguments)),
        Call("delete_consistencygroup", {"group_id": "@g", "delete_volumes": True}),
        inside=(("delete_consistencygroup", "after"),),
        lean=True,
    ),
    Scenario(
        "group-delete-in-part",
        "delete_consistencygroup",
        WITH_MEMBERS,
        Call("delete_consistencygroup", {"group_id": "@g", "delete_volumes": True}),
        faults=(fails("delete_consistencygroup", "@c", "before"),),
        since="delete_consistencygroup/delete/undo",
        lean=True,
    ),
    Scenario(
        "cgsnapshot",
        "create_cgsnapshot",
        WITH_MEMBERS,
        SET,
        inside=(("create_cgsnapshot", "building"),),
        lean=True,
    ),
    Scenario(
        "cgsnapshot-fails",
        "create_cgsnapshot",
        WITH_MEMBERS,
        SET,
        faults=(fails("create_cgsnapshot", "@k"),),
        since="create_cgsnapshot/create/undo",
        lean=True,
    ),
    Scenario(
        "delete-cgsnapshot",
        "delete_cgsnapshot",
        (*WITH_MEMBERS, SET),
        Call("delete_cgsnapshot", {"cgsnapshot_id": "@k"}),
        lean=True,
    ),
    Scenario(
        "delete-cgsnapshot-fails",
        "delete_cgsnapshot",
        (*WITH_MEMBERS, SET),
        Call("delete_cgsnapshot", {"cgsnapshot_id": "@k"}),
        faults=(fails("delete_cgsnapshot", "@k"),),
        since="delete_cgsnapshot/delete/undo",
        lean=True,
    ),
    Scenario(
        "group-from-cgsnapshot",
        "create_consistencygroup_from_src",
        (*WITH_MEMBERS, SET),
        FROM_SET,
        inside=(("create_consistencygroup_from_src", "building"),),
        lean=True,
    ),
    Scenario(
        "group-from-group-fails",
        "create_consistencygroup_from_src",
        WITH_MEMBERS,
        Call("create_consistencygroup_from_src", {"group_id": "@h", "source_group_id": "@g"}),
        faults=(fails("create_consistencygroup_from_src", "@h"),),
        since="create_consistencygroup_from_src/create/undo",
        lean=True,
    ),
)
