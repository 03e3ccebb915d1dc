# SPDX-License-Identifier: Apache-2.0
"""The rules that hold without a policy file: for each verb who may ask for it, in oslo.policy's language.

A rule is about the caller and the verb. Whose a resource is, is not a rule's matter: who does not speak for the whole
deployment never meets another project's rows. This module imports nothing, so that it costs nothing.
"""

from __future__ import annotations

#: what the name of each rule begins with.
PREFIX = "volume:"
ADMIN, MEMBER, READER = "context_is_admin", "project_member", "project_reader"

#: the rules that the others are made of: name, what it takes, what it means.
BASE: tuple[tuple[str, str, str], ...] = (
    (ADMIN, "is_admin:True", "Who speaks for the whole deployment: sees the resources of every project."),
    (MEMBER, f"rule:{ADMIN} or role:member", "Who may change what belongs to the project of the request."),
    (READER, f"rule:{MEMBER} or role:reader", "Who may look at what belongs to the project of the request."),
)

#: by verb: the rule that it takes, and what it does.
VERBS: dict[str, tuple[str, str]] = {
    # volumes
    "create_volume": (MEMBER, "Make a volume."),
    "delete_volume": (MEMBER, "Take a volume away."),
    "undelete_volume": (MEMBER, "Bring a deleted volume back from the trash."),
    "extend_volume": (MEMBER, "Make a volume larger."),
    "update_volume": (MEMBER, "Change what a volume is called and how it may be used."),
    "get_volume": (READER, "Read a volume."),
    "secure_file_operations_enabled": (READER, "Read whether a volume's driver works without root's rights."),
    "list_volumes": (READER, "List volumes."),
    "why": (READER, "Read what is wanted of a resource, what is there and who holds it."),
    # snapshots
    "create_snapshot": (MEMBER, "Keep a volume's bytes as they are."),
    "delete_snapshot": (MEMBER, "Take a snapshot away."),
    "revert_to_snapshot": (MEMBER, "Take a volume back to one of its snapshots."),
    "get_snapshot": (READER, "Read a snapshot."),
    "list_snapshots": (READER, "List snapshots."),
    # storage that was there before
    "manage_existing": (ADMIN, "Make existing storage a volume."),
    "manage_existing_snapshot": (ADMIN, "Make existing storage a snapshot."),
    "get_manageable_volumes": (ADMIN, "List the storage of a backend, whoever's it is."),
    "get_manageable_snapshots": (ADMIN, "List the snapshots of a backend, whoever's they are."),
    # attachments and connections
    "attach_volume": (MEMBER, "Record that an instance or a host uses a volume."),
    "detach_volume": (MEMBER, "Record that a volume is not used any more."),
    "attachment_create": (MEMBER, "Keep a volume for an instance."),
    "attachment_update": (MEMBER, "Grant an attachment's host access."),
    "attachment_complete": (MEMBER, "Record that the attachment's instance uses the volume."),
    "attachment_delete": (MEMBER, "Take an attachment and its access away."),
    "get_attachment": (READER, "Read an attachment."),
    "list_attachments": (READER, "List attachments."),
    "initialize_connection": (MEMBER, "Grant a host access to a volume."),
    "terminate_connection": (MEMBER, "Take a host's access to a volume away."),
    "initialize_connection_snapshot": (MEMBER, "Grant a host access to a snapshot."),
    "terminate_connection_snapshot": (MEMBER, "Take a host's access to a snapshot away."),
    "remove_export": (MEMBER, "Remove a volume's export that nobody is granted."),
    "remove_export_snapshot": (MEMBER, "Remove a snapshot's export that nobody is granted."),
    "check_for_export": (ADMIN, "Export every volume of an instance, whichever project's."),
    "initiator_add": (ADMIN, "Let a host's Fibre Channel port log in before it attaches anything."),
    "list_grants": (ADMIN, "List who may connect to what."),
    # groups
    "create_consistencygroup": (MEMBER, "Make a group."),
    "create_consistencygroup_from_src": (MEMBER, "Make a group from a cgsnapshot or another group."),
    "update_consistencygroup": (MEMBER, "Change a group and what is in it."),
    "delete_consistencygroup": (MEMBER, "Take a group away."),
    "create_cgsnapshot": (MEMBER, "Keep the bytes of all members of a group."),
    "delete_cgsnapshot": (MEMBER, "Take a cgsnapshot away."),
    "get_group": (READER, "Read a group."),
    "list_groups": (READER, "List groups."),
    "get_cgsnapshot": (READER, "Read a cgsnapshot."),
    "list_cgsnapshots": (READER, "List cgsnapshots."),
    # backups and images
    "create_backup": (MEMBER, "Copy a volume into a store."),
    "restore_backup": (MEMBER, "Give a volume the bytes of a backup."),
    "delete_backup": (MEMBER, "Remove a backup."),
    "get_backup": (READER, "Read a backup."),
    "list_backups": (READER, "List backups."),
    "get_backup_device": (MEMBER, "Read what a backup that is being made is read from."),
    "list_backup_stores": (READER, "List the stores that backups can go to."),
    "copy_volume_to_image": (MEMBER, "Make an image of a volume."),
    "get_image": (READER, "Read what a store says of an image."),
    "list_images": (READER, "List the images of the stores."),
    # place, type, owner
    "retype": (MEMBER, "Give a volume another type."),
    "migrate_volume": (ADMIN, "Move a volume to another backend."),
    "migrate_volume_completion": (ADMIN, "Let a copied volume take the place of the one that it was copied from."),
    "update_migrated_volume": (ADMIN, "Give a moved volume's storage its own name."),
    "transfer_create": (MEMBER, "Offer a volume to another project."),
    "transfer_accept": (MEMBER, "Take an offered volume over, by its key."),
    "transfer_delete": (MEMBER, "Withdraw an offer."),
    "get_transfer": (READER, "Read an offer."),
    "list_transfers": (READER, "List offers."),
    "accept_transfer": (ADMIN, "Give a volume to another project without an offer."),
    "promote_replica": (MEMBER, "Let a volume's replica take its place."),
    "reenable_replication": (MEMBER, "Let a volume's replica follow it again."),
    "failover_host": (ADMIN, "Let a backend work on its replication target."),
    "freeze_host": (ADMIN, "Let a backend take no changes."),
    "thaw_host": (ADMIN, "Let a backend take changes again."),
    # types, QoS, quotas, placement
    "type_create": (ADMIN, "Make a volume type."),
    "type_update": (ADMIN, "Change a volume type."),
    "type_delete": (ADMIN, "Remove a volume type."),
    "type_set_specs": (ADMIN, "Change what a volume type is made of."),
    "get_type": (READER, "Read a public volume type."),
    "list_types": (READER, "List public volume types."),
    "qos_create": (ADMIN, "Make a QoS."),
    "qos_update": (ADMIN, "Change a QoS."),
    "qos_delete": (ADMIN, "Remove a QoS."),
    "qos_associate": (ADMIN, "Let volumes of a type have a QoS."),
    "qos_disassociate": (ADMIN, "End a type's association with a QoS."),
    "get_qos": (ADMIN, "Read a QoS."),
    "list_qos": (ADMIN, "List QoS."),
    "quota_set": (ADMIN, "Set limits of a project."),
    "get_quota": (READER, "Read the limits and the use of the own project."),
    "list_quotas": (READER, "List limits and use of the own project."),
    "quota_reserve": (MEMBER, "Count quota for a request to come."),
    "quota_rollback": (MEMBER, "Give reservations back."),
    "explain_placement": (READER, "Read where a volume would go, and why."),
    # operations
    "get_operation": (READER, "Read an operation."),
    "list_operations": (READER, "List operations."),
    "wait_operation": (READER, "Wait for the end of an operation."),
    "operation_cancel": (MEMBER, "Stop an operation at its next safe point."),
    "operation_retry": (MEMBER, "Try a parked operation again."),
    "operation_abandon": (MEMBER, "Give a parked operation up."),
    # workers and backends
    "is_working": (READER, "Read whether a backend is set up."),
    "get_capabilities": (READER, "Read what a backend can do and how full it is."),
    "list_services": (READER, "List the workers."),
    "get_service": (READER, "Read one worker."),
    "list_backends": (READER, "List the backends."),
    "get_backend": (READER, "Read one backend."),
    "service_disable": (ADMIN, "Let nothing new be placed on a worker."),
    "service_enable": (ADMIN, "Let volumes be placed on a worker again."),
    "service_drain": (ADMIN, "Let nothing new be placed on a worker and say what it is still at."),
    "audit": (ADMIN, "Compare SQL, storage and target, and mend."),
    "list_findings": (ADMIN, "List what the last audits have found."),
    "get_finding": (ADMIN, "Read one of what the last audits have found."),
    "reset_status": (ADMIN, "Give a resource another status by hand."),
    "publish_service_capabilities": (ADMIN, "Ask a backend for its state and record it."),
    "notification": (ADMIN, "Tell a worker of an event on its host."),
    "ring": (ADMIN, "Wake a worker: its journal has something new."),
}

#: by verb and argument: the rule that a request takes besides the verb's own if the argument is set.
ARGUMENTS: dict[tuple[str, str], tuple[str, str]] = {
    ("delete_volume", "unmanage_only"): (ADMIN, "Forget a volume and leave its storage behind."),
    ("delete_snapshot", "unmanage_only"): (ADMIN, "Forget a snapshot and leave its storage behind."),
}


def all_rules() -> list[tuple[str, str, str]]:
    """Return every rule: name, what it takes, what it is about."""
    found = list(BASE)
    for verb, (wanted, text) in VERBS.items():
        found.append((PREFIX + verb, f"rule:{wanted}", text))
        for (other, argument), (more, about) in ARGUMENTS.items():
            if other == verb:
                found.append((f"{PREFIX}{verb}:{argument}", f"rule:{more}", about))
    return found


def needed(verb: str, arguments: dict[str, object]) -> list[str]:
    """Return the names of the rules that a request takes."""
    more = [f"{PREFIX}{verb}:{name}" for (other, name) in ARGUMENTS if other == verb and arguments.get(name)]
    return [PREFIX + verb, *more]
