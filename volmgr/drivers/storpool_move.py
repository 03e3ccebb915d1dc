# SPDX-License-Identifier: Apache-2.0
"""What changes a StorPool volume's type, place or name, and none of its bytes. Knows no target and no manager."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from volmgr import exception, names
from volmgr.drivers.storpool_setup import TEMPLATE_SPEC, StorPoolSetup
from volmgr.types import ModelUpdate, Volume, VolumeType

#: Tag of a volume that has taken the name of another: that other one's temporary id.
TOOK_TAG = "volmgr-took-name-from"
_POOL_PREFIX = "template_"


class StorPoolMoving(StorPoolSetup, abstract=True):
    """Retype, migrate, and the exchange of names after a migration."""

    # --- retype -------------------------------------------------------------------------------------------------

    def retype(
        self,
        context: Any,
        volume: Volume,
        new_type: VolumeType | Mapping[str, Any],
        diff: Mapping[str, Any],
        host: Mapping[str, Any],
    ) -> bool | tuple[bool, ModelUpdate]:
        """Give ``volume`` the new type's template; its bytes move inside StorPool while it is used.

        :returns: False where that is not enough: another backend, or encryption that differs.
        """
        if _differs(diff.get("encryption")) or not self._stays(host):
            return False
        specs = diff.get("extra_specs") or {}
        if _differs({"": specs.get("volume_backend_name")}):
            return False
        old, new = specs.get(TEMPLATE_SPEC) or (None, None)
        if old != new:
            self._update_policy(volume, self._policy(new or self.configuration.storpool_template or None))
        return True

    def _stays(self, host: Mapping[str, Any] | None) -> bool:
        own = self.host or ""
        wanted = str((host or {}).get("host") or own)
        return names.service_of(wanted) == names.service_of(own)

    def _update_policy(self, volume: Volume, policy: Mapping[str, Any]) -> None:
        """Give a volume other settings; doing so again changes nothing.

        :raises VolumeNotFound: it is not there. :raises Invalid: there is no such template.
        """
        name = self.storpool_name(volume)
        try:
            self.api.change(f"VolumeUpdate {name}", lambda client: client.volume_update(name, dict(policy)))
        except exception.NotFound as error:
            if self.api.volume(name) is None:
                raise exception.VolumeNotFound(id=volume.id) from error
            raise exception.Invalid(
                f"StorPool has no template {policy.get('template')}",
                hint="See: storpool template list",
                field="volume_type",
            ) from error

    # --- migrate ------------------------------------------------------------------------------------------------

    def migrate_volume(self, context: Any, volume: Volume, host: Mapping[str, Any]) -> tuple[bool, ModelUpdate]:
        """Move ``volume`` to a backend on the same cluster: at most its template changes.

        :returns: (False, None) for any other destination, whose caller is to copy.
        """
        capabilities = host.get("capabilities") or {}
        told = [capabilities, *(capabilities.get("pools") or [])]
        if not any(item.get("location_info") == self.location_info for item in told):
            return False, None
        present = self.api.volume(self.storpool_name(volume))
        if present is None:
            raise exception.VolumeNotFound(id=volume.id)
        pool = str(host.get("host") or "").partition("#")[2]
        template = pool.removeprefix(_POOL_PREFIX)
        if template != pool and present["templateName"] != template:
            self._update_policy(volume, {"template": template})
        return True, None

    def update_migrated_volume(
        self, context: Any, volume: Volume, new_volume: Volume, original_volume_status: str
    ) -> ModelUpdate:
        """Give the copy ``new_volume`` the name of ``volume``, and the original, if it is here too, the copy's.

        It can be broken off anywhere and run again: the copy takes its name and a mark in one call, the original waits
        under a third name meanwhile. A renaming that StorPool refuses leaves both as they were.

        :returns: {'_name_id': None} once the copy has its name, else {'_name_id': the id that its name is made from}.
        :raises VolumeNotFound: there is no copy.
        """
        prefix = self.config.prefix
        original, copy = self.storpool_name(volume), self.storpool_name(new_volume)
        waiting = names.storpool_swap_name(prefix, new_volume.name_id)
        holder = self.api.volume(original)
        if holder is None or (holder.get("tags") or {}).get(TOOK_TAG) != new_volume.name_id:
            if self.api.volume(copy) is None:
                raise exception.VolumeNotFound(id=new_volume.id)
            if not self._exchange(original, copy, waiting, new_volume.name_id, holder):
                return {"_name_id": new_volume.name_id}
        if self.api.volume(waiting) is not None:
            self._rename(waiting, copy)
        return {"_name_id": None}

    def _exchange(self, original: str, copy: str, waiting: str, copy_id: str, holder: Mapping[str, Any] | None) -> bool:
        """Make room for the copy and let it take its name; False if StorPool refused and nothing has changed."""
        try:
            if holder is not None:
                self._rename(original, waiting)
        except (exception.Busy, exception.Invalid):
            return False
        try:
            self._rename(copy, original, {TOOK_TAG: copy_id})
        except (exception.Busy, exception.Invalid):
            if self.api.volume(waiting) is not None:
                self._rename(waiting, original)
            return False
        return True

    def _rename(self, name: str, new_name: str, tags: Mapping[str, str] | None = None) -> None:
        """Rename a volume, known by its global id, so that nothing else of either name can be meant."""
        present = self.api.volume(name)
        if present is None:
            raise exception.NotFound(resource="StorPool volume", id=name)
        itself = f"~{present['globalId']}"
        data = {"rename": new_name, **({"tags": dict(tags)} if tags else {})}

        def settled() -> bool:
            found = self.api.volume(itself)
            return found is not None and found["name"] == new_name

        self.api.change(f"VolumeUpdate {name}", lambda client: client.volume_update(itself, data), settled)


def _differs(diff: Any) -> bool:
    """Return whether a part of a type's difference, {key: (old, new)}, says that anything differs."""
    return any(pair is not None and pair[0] != pair[1] for pair in (diff or {}).values())
