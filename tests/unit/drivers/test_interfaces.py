# SPDX-License-Identifier: Apache-2.0
"""Capability is inheritance: compositions that must not import, and what a class is said to support."""

import inspect

import pytest

from volmgr import exception
from volmgr.drivers import interfaces
from volmgr.drivers.base import BaseVD
from volmgr.drivers.driver import VolumeDriver
from volmgr.drivers.exporting import TargetVD
from volmgr.drivers.fake import FakeISCSIDriver, FakeISERDriver
from volmgr.drivers.fibre_channel import FibreChannelDriver
from volmgr.drivers.file import FileDriver
from volmgr.drivers.interfaces import VERBS, ExtendVD, LocalVD, ProxyVD, RetypeVD, SnapshotVD, TrashVD, supports
from volmgr.drivers.iscsi import ISCSIDriver
from volmgr.drivers.iser import ISERDriver
from volmgr.drivers.sim import SimDriver

# Arguments without self, in order: "=" has a default, "**" takes any keyword. Drivers elsewhere rely on these names.
SIGNATURES = {
    "LocalVD": {"local_path": "volume"},
    "SnapshotVD": {
        "create_snapshot": "snapshot",
        "delete_snapshot": "snapshot",
        "create_volume_from_snapshot": "volume snapshot",
        "revert_to_snapshot": "context volume snapshot",
    },
    "ConsistencyGroupVD": {
        "create_cgsnapshot": "context cgsnapshot snapshots",
        "delete_cgsnapshot": "context cgsnapshot snapshots",
        "create_consistencygroup": "context group",
        "delete_consistencygroup": "context group volumes",
        "update_consistencygroup": "context group add_volumes= remove_volumes=",
        "create_consistencygroup_from_src": "context group volumes cgsnapshot= snapshots= source_cg= source_vols=",
    },
    "CloneableImageVD": {"clone_image": "context volume image_location image_meta image_service"},
    "MigrateVD": {"migrate_volume": "context volume host"},
    "ExtendVD": {"extend_volume": "volume new_size"},
    "RetypeVD": {"retype": "context volume new_type diff host"},
    "TransferVD": {"accept_transfer": "context volume new_user new_project"},
    "ManageableVD": {
        "manage_existing": "volume existing_ref",
        "manage_existing_get_size": "volume existing_ref",
        "unmanage": "volume",
        "get_manageable_volumes": "cinder_volumes marker limit offset sort_keys sort_dirs",
    },
    "ManageableSnapshotsVD": {
        "manage_existing_snapshot": "snapshot existing_ref",
        "manage_existing_snapshot_get_size": "snapshot existing_ref",
        "unmanage_snapshot": "snapshot",
        "get_manageable_snapshots": "cinder_snapshots marker limit offset sort_keys sort_dirs",
    },
    "ReplicaVD": {
        "reenable_replication": "context volume",
        "get_replication_status": "context volume",
        "promote_replica": "context volume",
        "create_replica_test_volume": "volume src_vref",
    },
    "TrashVD": {
        "trash_volume": "volume",
        "trash_snapshot": "snapshot",
        "restore_volume": "volume",
        "restore_snapshot": "snapshot",
        "wipe": "kind object_id progress",
    },
    "ObserveVD": {"observe": "", "recognise": "verb resource", "discard": "name progress", "resume": "name"},
}
BASE = {
    "create_volume": "volume",
    "delete_volume": "volume",
    "check_for_setup_error": "",
    "get_volume_stats": "refresh=",
    "ensure_export": "context volume",
    "create_export": "context volume connector",
    "remove_export": "context volume",
    "initialize_connection": "volume connector initiator_data=",
    "terminate_connection": "volume connector **kwargs",
    "create_export_snapshot": "context snapshot connector",
    "remove_export_snapshot": "context snapshot",
    "initialize_connection_snapshot": "snapshot connector **kwargs",
    "terminate_connection_snapshot": "snapshot connector **kwargs",
    "create_cloned_volume": "volume src_vref",
    "copy_image_to_volume": "context volume image_service image_id",
    "copy_volume_to_image": "context volume image_service image_meta",
    "before_volume_copy": "context src_vol dest_vol remote=",
    "after_volume_copy": "context src_vol dest_vol remote=",
    "get_backup_device": "context backup",
    "backup_volume": "context backup backup_service",
    "restore_backup": "context backup volume backup_service",
    "clear_download": "context volume",
    "attach_volume": "context volume instance_uuid host_name mountpoint",
    "detach_volume": "context volume attachment=",
    "do_setup": "context",
    "validate_connector": "connector",
    "update_migrated_volume": "ctxt volume new_volume original_volume_status",
    "update_provider_info": "volumes snapshots",
    "failover_host": "context volumes secondary_id=",
    "freeze_backend": "context",
    "thaw_backend": "context",
    "get_pool": "volume",
    "get_prefixed_property": "property",
}


def signature(cls: type, method: str) -> str:
    marks = {inspect.Parameter.VAR_KEYWORD: "**"}
    parameters = list(inspect.signature(getattr(cls, method)).parameters.values())[1:]
    return " ".join(
        f"{marks.get(item.kind, '')}{item.name}{'' if item.default is item.empty else '='}" for item in parameters
    )


@pytest.mark.parametrize(("mixin", "methods"), SIGNATURES.items(), ids=SIGNATURES)
def test_mixins_have_these_methods_and_arguments(mixin: str, methods: dict[str, str]) -> None:
    cls = getattr(interfaces, mixin)
    assert {method: signature(cls, method) for method in methods} == methods
    assert all(VERBS[method] == (cls, method) for method in methods)


def test_the_base_has_these_methods_and_arguments() -> None:
    assert {method: signature(BaseVD, method) for method in BASE} == BASE


def test_the_class_tree_has_its_order() -> None:
    assert [base.__name__ for base in VolumeDriver.__bases__] == [
        "ConsistencyGroupVD",
        "TransferVD",
        "ManageableVD",
        "ExtendVD",
        "CloneableImageVD",
        "ManageableSnapshotsVD",
        "SnapshotVD",
        "ReplicaVD",
        "LocalVD",
        "MigrateVD",
        "BaseVD",
    ]
    assert ISCSIDriver.__bases__ == FibreChannelDriver.__bases__ == (VolumeDriver,)
    assert ISERDriver.__bases__ == FakeISCSIDriver.__bases__ == (ISCSIDriver,)
    assert FakeISERDriver.__bases__ == (FakeISCSIDriver,)


def test_a_method_without_its_mixin_cannot_be_imported() -> None:
    with pytest.raises(TypeError, match=r"Wrong has extend_volume, a method of ExtendVD, and does not inherit it"):

        class Wrong(TargetVD, abstract=True):
            def extend_volume(self, volume: object, new_size: int) -> None: ...


def test_a_method_from_a_plain_helper_class_counts_too() -> None:
    class Helper:
        def retype(self, *args: object) -> bool:
            return True

    with pytest.raises(TypeError, match="has retype, a method of RetypeVD"):

        class Wrong(Helper, TargetVD, abstract=True):
            pass


def test_a_mixin_without_its_methods_cannot_be_imported() -> None:
    with pytest.raises(TypeError, match=r"lacks TrashVD\.restore_snapshot.*TrashVD\.wipe"):

        class Wrong(SimDriver):
            restore_snapshot = TrashVD.restore_snapshot
            wipe = TrashVD.wipe


def test_a_default_that_hides_an_abstract_method_is_no_implementation() -> None:
    with pytest.raises(TypeError, match=r"lacks RetypeVD\.retype"):

        class Wrong(SimDriver):
            retype = BaseVD.retype


def test_a_mixin_that_requires_another_one_cannot_be_imported_alone() -> None:
    with pytest.raises(TypeError, match="ConsistencyGroupVD, which requires SnapshotVD"):

        class Wrong(interfaces.ConsistencyGroupVD, BaseVD, abstract=True):
            pass


def test_a_mixin_makes_its_verbs_supported() -> None:
    assert SimDriver.supports("extend_volume")
    assert SimDriver.supports("wipe")
    assert SimDriver.supports("clone_image")
    assert not FileDriver.supports("clone_image")
    assert not FileDriver.supports("get_manageable_volumes")
    with pytest.raises(ValueError, match="no verb"):
        SimDriver.supports("fly")


def test_the_simulator_implements_every_mixin() -> None:
    mixins = {mixin for mixin, _method in VERBS.values()}
    assert {mixin.__name__ for mixin in mixins if not issubclass(SimDriver, mixin)} == set()
    # Nothing of the mixins is left to a body that does nothing; what is left of the base needs images or backups.
    left = {verb for verb, (mixin, _method) in VERBS.items() if not SimDriver.supports(verb) and mixin is not BaseVD}
    assert left == set()
    for verb in ("failover_host", "freeze_backend", "thaw_backend", "get_replication_updates"):
        assert SimDriver.supports(verb), verb


def test_heirs_of_the_older_base_may_implement_a_part() -> None:
    class Part(VolumeDriver):
        def create_volume(self, volume: object) -> None: ...

        def retype(self, *args: object) -> bool:
            return True

    assert {verb for verb in ("create_volume", "retype", "extend_volume", "delete_volume") if Part.supports(verb)} == {
        "create_volume",
        "retype",
    }
    driver = Part()
    for call in (
        lambda: driver.extend_volume(None, 2),
        lambda: driver.get_manageable_volumes([], None, None, None, None, None),
        lambda: driver.create_cgsnapshot(None, None, []),
    ):
        with pytest.raises(exception.Unsupported):
            call()
    assert driver.migrate_volume(None, None, {}) == (False, None)
    assert driver.clone_image(None, None, None, {}, None) == (None, False)


def test_a_general_solution_is_supported_where_what_it_needs_is() -> None:
    class WithSnapshots(VolumeDriver):
        create_snapshot = delete_snapshot = create_volume_from_snapshot = lambda self, *args: None

    class Without(VolumeDriver):
        create_snapshot = lambda self, snapshot: None  # noqa: E731

    assert WithSnapshots.supports("create_cloned_volume")
    assert not Without.supports("create_cloned_volume")


def test_mixins_may_be_added_to_the_older_base() -> None:
    class Both(TargetVD, VolumeDriver, RetypeVD, abstract=True):
        def local_path(self, volume: object) -> str:
            return "/nonexistent"

    assert issubclass(Both, RetypeVD)
    assert Both.supports("export_path")
    assert Both.supports("create_export")
    assert not Both.supports("retype")


def test_a_proxy_is_asked_for_what_stands_behind_it() -> None:
    driver = FileDriver.__new__(FileDriver)

    class Proxy(ProxyVD):
        def _get_driver(self) -> FileDriver:
            return driver

    class Outer(ProxyVD):
        def _get_driver(self) -> Proxy:
            return Proxy()

    for proxy in (Proxy(), Outer()):
        assert supports(proxy, "extend_volume")
        assert proxy.supports("extend_volume")
        assert not supports(proxy, "clone_image")
    with pytest.raises(NotImplementedError, match="ProxyVD"):
        supports(ProxyVD(), "extend_volume")


def test_every_verb_belongs_to_a_mixin_that_has_it() -> None:
    for verb, (mixin, method) in VERBS.items():
        assert verb == method
        assert method in vars(mixin)
    assert {LocalVD, SnapshotVD, ExtendVD, BaseVD} <= {mixin for mixin, _method in VERBS.values()}
