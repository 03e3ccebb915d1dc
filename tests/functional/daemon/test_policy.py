# SPDX-License-Identifier: Apache-2.0
"""Another project's caller: every verb of the real daemon is tried with what is not theirs, and nothing changes."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from volmgr import exception
from volmgr.context import RequestContext
from volmgr.policy import rules
from volmgr.testing.daemon import Client, Daemon

CONNECTOR = {"initiator": "iqn.1993-08.org.debian:01:b", "ip": "127.0.0.1", "host": "compute"}
#: verbs that are about nobody's resource: what they tell is the same for everybody.
NOBODYS = {
    "list_backup_stores", "get_image", "list_images", "get_type", "list_types", "explain_placement", "is_working",
    "get_capabilities", "list_services", "get_service", "list_backends", "get_backend",
}  # fmt: skip


def new_id() -> str:
    return str(uuid.uuid4())


def tenant(project: str, *roles: str) -> RequestContext:
    return RequestContext(project_id=project, user_id=f"user of {project}", roles=list(roles), overwrite=False)


class Estate:
    """One of each thing, all of project ``owner``."""

    def __init__(self, client: Client) -> None:
        self.api = client.api
        self.volume, self.other, self.deleted, self.group, self.cgsnapshot = (new_id() for _ in range(5))
        self.snapshot, self.backup, self.attachment, self.transfer = (new_id() for _ in range(4))
        self.operation = self.do("create_volume", self.volume, size=1)["id"]
        self.do("create_volume", self.other, size=1)
        self.do("create_volume", self.deleted, size=1)
        self.do("delete_volume", self.deleted)
        self.do("create_snapshot", self.volume, self.snapshot)
        self.do("create_backup", self.backup, self.volume)
        self.api.attachment_create(tenant("owner"), self.attachment, self.volume, new_id())
        self.api.transfer_create(tenant("owner"), self.transfer, self.other)
        type_id = new_id()
        self.api.type_create(client.context, type_id, "gold")
        self.do("create_consistencygroup", self.group, volume_types=["gold"])
        self.do("create_volume", new_id(), size=1, volume_type="gold", group_id=self.group)
        self.do("create_cgsnapshot", self.cgsnapshot, group_id=self.group)

    def do(self, verb: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        answer = getattr(self.api, verb)(tenant("owner"), *args, **kwargs)
        return self.api.wait_operation(tenant("owner"), answer["operation_id"], 60)

    def requests(self) -> dict[str, list[dict[str, Any]]]:
        """Return, for each verb about somebody's resource, requests that name what is the owner's."""
        volume, snapshot = {"volume_id": self.volume}, {"snapshot_id": self.snapshot}
        attached = {**volume, "attachment_id": self.attachment}
        made = {"volume_id": new_id()}
        return {
            # First, as it later tells the stranger of the own requests that were refused.
            "why": [{"resource_id": item} for item in (self.volume, self.snapshot, self.group, self.backup)],
            "create_volume": [
                {**made, "size": 1, "snapshot_id": self.snapshot},
                {**made, "size": 1, "source_volid": self.volume},
                {**made, "size": 1, "source_replica": self.volume},
                {**made, "size": 1, "group_id": self.group, "volume_type": "gold"},
                {**made, "size": 1, "backup_id": self.backup},
            ],
            "delete_volume": [volume, {**volume, "force": True}, {**volume, "cascade": True}],
            "undelete_volume": [{"volume_id": self.deleted}],
            "extend_volume": [{**volume, "new_size": 2}],
            "update_volume": [{**volume, "name": "mine now"}],
            "get_volume": [volume],
            "secure_file_operations_enabled": [volume],
            "create_snapshot": [{**volume, "snapshot_id": new_id(), "force": force} for force in (False, True)],
            "delete_snapshot": [snapshot],
            "revert_to_snapshot": [{**volume, **snapshot}],
            "get_snapshot": [snapshot],
            "attach_volume": [{**volume, "instance_uuid": new_id()}],
            "detach_volume": [volume, attached, {**volume, "force": True}],
            "attachment_create": [{**volume, "attachment_id": new_id()}],
            "attachment_update": [{**attached, "connector": CONNECTOR}],
            "attachment_complete": [{"attachment_id": self.attachment}],
            "attachment_delete": [attached],
            "get_attachment": [{"attachment_id": self.attachment}],
            "initialize_connection": [{**volume, "connector": CONNECTOR}],
            "terminate_connection": [{**volume, "connector": CONNECTOR}, {**volume, "connector": None, "force": True}],
            "initialize_connection_snapshot": [{**snapshot, "connector": CONNECTOR}],
            "terminate_connection_snapshot": [{**snapshot, "connector": CONNECTOR}],
            "remove_export": [volume],
            "remove_export_snapshot": [snapshot],
            "create_consistencygroup_from_src": [
                {"group_id": new_id(), "cgsnapshot_id": self.cgsnapshot},
                {"group_id": new_id(), "source_group_id": self.group},
            ],
            "update_consistencygroup": [
                {"group_id": self.group, "name": "mine now"}, {"group_id": self.group, "add_volumes": [self.other]},
            ],
            "delete_consistencygroup": [
                {"group_id": self.group}, {"group_id": self.group, "delete_volumes": True},
            ],
            "create_cgsnapshot": [{"group_id": self.group, "cgsnapshot_id": new_id()}],
            "delete_cgsnapshot": [{"cgsnapshot_id": self.cgsnapshot}],
            "get_group": [{"group_id": self.group}],
            "get_cgsnapshot": [{"cgsnapshot_id": self.cgsnapshot}],
            "create_backup": [{**volume, "backup_id": new_id()}, {**volume, **snapshot, "backup_id": new_id()}],
            "restore_backup": [{**volume, "backup_id": self.backup}, {**made, "backup_id": self.backup}],
            "delete_backup": [{"backup_id": self.backup}],
            "get_backup": [{"backup_id": self.backup}],
            "get_backup_device": [{"backup_id": self.backup}],
            "copy_volume_to_image": [{**volume, "image_meta": {"id": new_id()}}],
            "retype": [{**volume, "new_type_id": "gold"}],
            "transfer_create": [{**volume, "transfer_id": new_id()}],
            "transfer_delete": [{"transfer_id": self.transfer}],
            "get_transfer": [{"transfer_id": self.transfer}],
            "promote_replica": [volume],
            "reenable_replication": [volume],
            "get_operation": [{"operation_id": self.operation}],
            "wait_operation": [{"operation_id": self.operation, "timeout": 1}],
            "operation_cancel": [{"operation_id": self.operation}],
            "operation_retry": [{"operation_id": self.operation}],
            "operation_abandon": [{"operation_id": self.operation}],
        }  # fmt: skip


#: verbs that answer another project's caller in a way of their own.
def _own_ways(estate: Estate) -> dict[str, Callable[[Any], bool]]:
    return {
        # The key is what counts, and a wrong one is told apart from nothing.
        "transfer_accept": lambda call: refuses(call, exception.Forbidden, transfer_id=estate.transfer, auth_key="00"),
        "get_quota": lambda call: refuses(call, exception.Forbidden, project_id="owner"),
        "list_quotas": lambda call: refuses(call, exception.Forbidden, filters={"project_id": "owner"}),
        "quota_reserve": lambda call: refuses(
            call, exception.Forbidden, reservation_id=new_id(), project_id="owner", volumes=1
        ),
        "quota_rollback": lambda call: refuses(
            call, exception.Forbidden, reservations=[new_id()], project_id="owner"
        ),
        "create_consistencygroup": lambda call: refuses(call, exception.Conflict, group_id=estate.group),
    }


def refuses(call: Callable[..., Any], error: type[Exception], **arguments: Any) -> bool:
    with pytest.raises(error):
        call(**arguments)
    return True


@pytest.fixture
def estate(make_daemon: Callable[..., Daemon], tmp_path: Any) -> Estate:
    (tmp_path / "backups").mkdir()
    daemon = make_daemon(options={"backup_store": f"file://{tmp_path}/backups", "trash_retention": 3600}).start()
    return Estate(daemon.client())


def test_another_project_meets_nothing_of_it_by_any_verb(estate: Estate) -> None:
    api, stranger = estate.api, tenant("stranger", "member")
    requests, own_ways = estate.requests(), _own_ways(estate)
    admins = {verb for verb, (wanted, _text) in rules.VERBS.items() if wanted == rules.ADMIN}
    lists = {verb for verb in rules.VERBS if verb.startswith("list_")} - NOBODYS - admins - set(own_ways)
    assert set(rules.VERBS) == set(requests) | set(own_ways) | lists | NOBODYS | admins
    before = everything(estate)

    for verb, wanted in requests.items():
        for arguments in wanted:
            assert refuses(functools.partial(api.call, stranger, verb), exception.NotFound, **arguments), verb
    for verb in lists:
        found = api.call(stranger, verb)
        if verb == "list_operations":  # the stranger's own requests, all refused
            found = [item for item in found if item["state"] != "failed"]
        assert found == [], verb
    for verb, judge in own_ways.items():
        assert judge(functools.partial(api.call, stranger, verb)), verb
    assert everything(estate) == before


def everything(estate: Estate) -> dict[str, Any]:
    api, owner = estate.api, tenant("owner")
    lists = ("volumes", "snapshots", "groups", "cgsnapshots", "backups", "attachments", "transfers")
    return {noun: api.call(owner, f"list_{noun}") for noun in lists} | {"quota": api.get_quota(owner)}


def test_a_reader_reads_and_changes_nothing(estate: Estate) -> None:
    api, reader = estate.api, tenant("owner", "reader")
    assert api.get_volume(reader, estate.volume)["id"] == estate.volume
    with pytest.raises(exception.Forbidden) as refused:
        api.extend_volume(reader, estate.volume, 2)
    assert "volume:extend_volume" in (refused.value.hint or "")
    with pytest.raises(exception.Forbidden) as refused:
        api.delete_volume(tenant("owner", "member"), estate.volume, unmanage_only=True)
    assert "volume:delete_volume:unmanage_only" in (refused.value.hint or "")
