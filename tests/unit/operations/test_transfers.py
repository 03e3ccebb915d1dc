# SPDX-License-Identifier: Apache-2.0
"""Offers of volumes: the key is told once and kept as a hash, the quota goes along, and nobody gets in between."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.operations.moving import ONE, Site, new_id, points_of
from volmgr import exception
from volmgr.context import RequestContext
from volmgr.db import models, transfers
from volmgr.db.engine import utcnow
from volmgr.operations import snapshots, volumes
from volmgr.operations.transfers import AcceptTransfer, Transfers

CONNECTOR = {"initiator": "iqn.1993-08.org.debian:01:a", "ip": "127.0.0.1", "host": "compute"}
OWNER = RequestContext(project_id="p", user_id="u", overwrite=False)
OTHER = RequestContext(project_id="other", user_id="o", overwrite=False)


class Offers:
    """The verbs as the first worker has them."""

    def __init__(self, site: Site) -> None:
        self.site = site

    @property
    def verbs(self) -> Transfers:
        dispatcher = self.site.one.dispatcher
        return Transfers(
            self.site.one.database,
            self.site.one.clock,
            lambda context, values: dispatcher.submit(context, AcceptTransfer, AcceptTransfer.args.parse(values)),
            lambda context: dispatcher.joined(context, AcceptTransfer.verb),
        )

    def offer(self, volume_id: str, seconds: float = 0, context: RequestContext = OWNER) -> tuple[str, str]:
        answer = self.verbs.create(context, new_id(), volume_id, "gift", seconds)
        return answer["id"], answer["auth_key"]

    def accept(self, transfer_id: str, key: str, context: RequestContext = OTHER, request: str | None = None) -> Any:
        keyed = RequestContext.from_dict({**context.to_dict(), "request_key": request or new_id()})
        answer = self.verbs.accept(keyed, transfer_id, key)
        self.site.run()
        return self.site.one.dispatcher.get(answer["operation_id"])


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    assert made.wrong() == []
    made.one.close()


@pytest.fixture
def offers(site: Site) -> Offers:
    return Offers(site)


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_deletion_by_force_ends_the_offer_however_it_ends(site: Site, offers: Offers, cancelled: bool) -> None:
    volume_id = site.create()
    transfer_id, key = offers.offer(volume_id)
    if not cancelled:
        site.one.driver.faults.fail("trash_volume", exception.Inconsistent("no"))
    asked = site.one.submit(volumes.DeleteVolume, volume_id=volume_id, force=True)
    if cancelled:
        site.one.dispatcher.cancel(asked["operation_id"])
    site.run()
    assert site.volume(volume_id)["status"] == ("available" if cancelled else "error_deleting")
    with pytest.raises(exception.TransferNotFound):
        offers.accept(transfer_id, key)


def test_a_volume_goes_with_its_snapshots_and_their_quota(site: Site, offers: Offers) -> None:
    kind = site.kind("kind")
    volume_id, snapshot_id = site.create(size=2, volume_type="kind"), new_id()
    site.do(snapshots.CreateSnapshot, volume_id=volume_id, snapshot_id=snapshot_id)
    transfer_id, key = offers.offer(volume_id)
    assert site.volume(volume_id)["status"] == "awaiting-transfer"
    done = offers.accept(transfer_id, key)
    assert done.state == "done"
    row = site.volume(volume_id)
    assert (row["project_id"], row["user_id"], row["status"]) == ("other", "o", "available")
    (snapshot,) = site.one.rows(models.snapshots, id=snapshot_id)
    assert (snapshot["project_id"], snapshot["status"]) == ("other", "available")
    for type_id in ("", kind):
        assert (site.usage(type_id), site.usage(type_id, "other")) == ((0, 0, 0), (1, 1, 4))
    assert site.one.driver.faults.calls["accept_transfer"] == 1
    assert site.one.rows(models.transfers) == []


def test_the_key_stands_nowhere(site: Site, offers: Offers, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    transfer_id, key = offers.offer(site.create())
    with pytest.raises(exception.Forbidden):
        offers.accept(transfer_id, key[::-1])
    offers.accept(transfer_id, key)
    with site.one.database.reader() as conn:
        kept = [[tuple(row) for row in conn.execute(table.select())] for table in models.metadata.sorted_tables]
    assert key not in json.dumps(kept, default=str) and key not in caplog.text
    assert len(key) == 32


def test_two_offers_of_one_key_are_kept_differently() -> None:
    one, other = (transfers.hashed("key", transfers.new_salt()) for _ in range(2))
    assert one != other and one.startswith("scrypt$16384$8$1$0$") and len(one) <= 128


def test_wrong_keys_are_counted_and_end_the_offer(site: Site, offers: Offers) -> None:
    volume_id = site.create()
    transfer_id, key = offers.offer(volume_id)
    for left in range(transfers.MAX_WRONG - 1, -1, -1):
        with pytest.raises(exception.Forbidden) as caught:
            offers.accept(transfer_id, "wrong")
        assert caught.value.details["left"] == left
    with pytest.raises(exception.TransferNotFound):
        offers.accept(transfer_id, key)
    assert site.volume(volume_id)["status"] == "available"


def test_an_offer_expires(site: Site, offers: Offers) -> None:
    volume_id, kept = site.create(), site.create()
    transfer_id, key = offers.offer(volume_id, seconds=60)
    offers.offer(kept, seconds=3600)
    later = utcnow() + datetime.timedelta(seconds=61)
    with site.one.database.writer() as conn:
        assert transfers.expire(conn, utcnow()) == 0 and transfers.has_expired(conn, later)
        conn.execute(models.transfers.update().where(models.transfers.c.id == transfer_id).values(expires_at=utcnow()))
    with pytest.raises(exception.TransferNotFound):
        offers.accept(transfer_id, key)
    with site.one.database.writer() as conn:
        assert transfers.expire(conn, utcnow()) == 1
    assert [site.volume(item)["status"] for item in (volume_id, kept)] == ["available", "awaiting-transfer"]


def test_a_withdrawn_offer_is_gone(site: Site, offers: Offers) -> None:
    volume_id = site.create()
    transfer_id, key = offers.offer(volume_id)
    with pytest.raises(exception.TransferNotFound):
        offers.verbs.delete(OTHER, transfer_id)
    assert offers.verbs.delete(OWNER, transfer_id)["withdrawn"]
    assert not offers.verbs.delete(OWNER, transfer_id)["withdrawn"]
    with pytest.raises(exception.TransferNotFound):
        offers.accept(transfer_id, key)
    assert site.volume(volume_id)["status"] == "available"


def test_what_cannot_be_offered(site: Site, offers: Offers) -> None:
    volume_id = site.create()
    with pytest.raises(exception.VolumeNotFound):
        offers.offer(volume_id, context=OTHER)
    site.one.attachments.initialize("volume", volume_id, CONNECTOR)
    with pytest.raises(exception.Conflict):
        offers.offer(volume_id)
    site.one.attachments.terminate("volume", volume_id, CONNECTOR, False)
    transfer_id, _key = offers.offer(volume_id)
    with pytest.raises(exception.Conflict):
        offers.offer(volume_id)
    with pytest.raises(exception.AlreadyExists):
        offers.verbs.create(OWNER, transfer_id, site.create(), None, 0)
    with pytest.raises(exception.Conflict):
        site.one.attachments.initialize("volume", volume_id, CONNECTOR)
    with pytest.raises(exception.Conflict):
        site.do(volumes.DeleteVolume, volume_id=volume_id)
    site.do(volumes.DeleteVolume, volume_id=volume_id, force=True)
    assert site.one.rows(models.transfers) == []


def test_a_repeat_of_an_acceptance_gets_its_answer(site: Site, offers: Offers) -> None:
    transfer_id, key = offers.offer(site.create())
    request = new_id()
    first = offers.accept(transfer_id, key, request=request)
    assert offers.accept(transfer_id, key, request=request).id == first.id


def test_the_old_owner_has_no_access_and_no_account_any_more(site: Site, offers: Offers) -> None:
    volume_id, snapshot_id, verbs = site.create(), new_id(), site.one.attachments
    site.do(snapshots.CreateSnapshot, volume_id=volume_id, snapshot_id=snapshot_id)
    verbs.initialize("snapshot", snapshot_id, CONNECTOR)
    before = verbs.initialize("volume", volume_id, CONNECTOR)["data"]
    verbs.terminate("volume", volume_id, CONNECTOR, False)
    transfer_id, key = offers.offer(volume_id)
    assert offers.accept(transfer_id, key).state == "done"
    assert site.one.rows(models.grants) == [] and site.one.target.observe() == []
    after = verbs.initialize("volume", volume_id, CONNECTOR)["data"]
    assert after["auth_password"] != before["auth_password"]
    verbs.terminate("volume", volume_id, CONNECTOR, False)


def test_the_second_who_accepts_gets_nothing(site: Site, offers: Offers) -> None:
    volume_id = site.create()
    transfer_id, key = offers.offer(volume_id)
    third = RequestContext.from_dict({**OTHER.to_dict(), "project_id": "third", "request_key": new_id()})
    keyed = RequestContext.from_dict({**OTHER.to_dict(), "request_key": new_id()})
    answers = [offers.verbs.accept(context, transfer_id, key) for context in (keyed, third)]
    with pytest.raises(exception.Conflict):
        offers.verbs.delete(OWNER, transfer_id)
    site.run()
    states = [site.one.dispatcher.get(answer["operation_id"]).state for answer in answers]
    assert states == ["done", "failed"] and site.volume(volume_id)["project_id"] == "other"
    assert site.usage("", "third") == (0, 0, 0)


def test_the_new_owners_quota_refuses_it(site: Site, offers: Offers) -> None:
    volume_id = site.create(size=2)
    transfer_id, key = offers.offer(volume_id)
    with site.one.database.writer() as conn:
        conn.execute(models.quotas.insert().values(project_id="other", volume_type_id="", max_gigabytes=1))
    done = offers.accept(transfer_id, key)
    assert (done.state, done.error["code"]) == ("failed", "volmgr.quota_exceeded")
    row = site.volume(volume_id)
    assert (row["status"], row["project_id"]) == ("awaiting-transfer", "p")
    assert (site.usage(), site.usage("", "other")) == ((1, 0, 2), (0, 0, 0))


def test_a_backend_that_fails_leaves_the_offer(site: Site, offers: Offers) -> None:
    volume_id = site.create()
    transfer_id, key = offers.offer(volume_id)
    site.one.driver.faults.fail("accept_transfer", exception.Inconsistent("no"))
    assert offers.accept(transfer_id, key).state == "failed"
    assert (site.volume(volume_id)["project_id"], site.usage("", "other")) == ("p", (0, 0, 0))
    assert offers.accept(transfer_id, key).state == "done"


def test_the_old_owner_cannot_connect_while_it_is_taken_over(site: Site) -> None:
    volume_id = site.create()
    site.one.submit(AcceptTransfer, volume_id=volume_id, new_user="o", new_project="other")
    with pytest.raises(exception.Conflict):
        site.one.attachments.attach(volume_id, new_id(), None, None, "rw", new_id())
    with pytest.raises(exception.Conflict):
        site.one.attachments.initialize("volume", volume_id, CONNECTOR)
    site.run()
    assert site.volume(volume_id)["project_id"] == "other"


def test_an_administrator_needs_no_offer(site: Site) -> None:
    volume_id = site.create()
    done = site.do(AcceptTransfer, volume_id=volume_id, new_user="o", new_project="other")
    assert done.state == "done" and site.volume(volume_id)["project_id"] == "other"


def test_a_death_at_any_point_changes_nothing(site: Site, offers: Offers) -> None:
    def told(kill: tuple[str, str, int] | None) -> list[tuple[str, str, int]]:
        volume_id, since = site.create(), len(site.passed)
        snapshot_id = new_id()
        site.do(snapshots.CreateSnapshot, volume_id=volume_id, snapshot_id=snapshot_id)
        transfer_id, key = offers.offer(volume_id)
        site.aims = [list(kill)] if kill else []
        assert offers.accept(transfer_id, key).state == "done"
        assert site.volume(volume_id)["project_id"] == "other" and site.wrong() == [], kill
        return points_of(site, since, lambda point: point.startswith("accept_transfer/"))

    found = told(None)
    assert {host for host, _point, _nth in found} == {ONE}
    for kill in found:
        if not kill[1].endswith(("/received", "/admitted")):
            told(kill)
    assert site.deaths == len(found) - 2
