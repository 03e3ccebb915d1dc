# SPDX-License-Identifier: Apache-2.0
"""Ships what has changed in volumes from one LVM group to another, point by point, beside all other work.

One cycle of a volume: a point is taken, a snapshot of the last point that both sides have is made on the other side,
the blocks in which the two differ are copied into it and made durable, it is tagged whole, and what is older goes.
Until that tag is there the last whole point is untouched, so whoever dies in between has lost a copy that was under way
and nothing else; the next cycle removes it. It knows no driver.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from volmgr import exception, killpoints, names
from volmgr.drivers import lvm_copy
from volmgr.drivers.lvm_points import (
    BASE,
    FOLLOWS,
    WHOLE,
    Point,
    Side,
    common,
    newest_whole,
    point_tag,
    points_of,
    replicated,
    stance,
    taken_tag,
)
from volmgr.drivers.options import Configuration
from volmgr.tools.lvm_report import Report

LOG = logging.getLogger(__name__)

#: Seconds that a verb waits for a copy that has been told to end; a disk that hangs may never let it.
TURN_SECONDS = 60.0


class Turns:
    """Lets one at a time work on a volume's replica; whoever ships is told that somebody waits."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held: set[str] = set()
        self._asked: Counter[str] = Counter()

    def asked(self, object_id: str) -> bool:
        """Return whether somebody waits for a turn."""
        return self._asked[object_id] > 0

    @contextlib.contextmanager
    def held(self, object_id: str, seconds: float = TURN_SECONDS) -> Iterator[None]:
        """Have the turn for the length of a block.

        :raises Busy: who has it did not end within so many seconds.
        """
        with self._changed:
            self._asked[object_id] += 1
            try:
                if not self._changed.wait_for(lambda: object_id not in self._held, seconds):
                    raise exception.Busy(
                        f"The copying of {object_id} to its replica does not end",
                        hint="A disk may hang, see: dmesg; lsblk", resource="object", id=object_id,
                    )
                self._held.add(object_id)
            finally:
                self._asked[object_id] -= 1
                if not self._asked[object_id]:
                    del self._asked[object_id]
        try:
            yield
        finally:
            with self._changed:
                self._held.discard(object_id)
                self._changed.notify_all()


@dataclass(frozen=True)
class _Trip:
    """One cycle of one volume; its sides are what they were at its begin, whatever becomes of them."""

    here: Side
    there: Side
    object_id: str
    volume_id: str
    life: int

    @property
    def volume(self) -> str:
        return names.object_name("volume", self.object_id)


class Shipping:
    """The copying between two sides.

    :param sides: the one that the backend began on, and the other. :param configuration: the backend's options.
    """

    def __init__(self, sides: tuple[Side, Side], configuration: Configuration) -> None:
        self.sides = sides
        self.over = False
        self.turns = Turns()
        #: by object why it could not be shipped the last time.
        self.troubles: dict[str, str] = {}
        #: by object the moment of which the other side has everything, as far as this process has seen to it.
        self.reached: dict[str, datetime.datetime] = {}
        self._configuration = configuration
        #: how many bytes have been shipped as differences.
        self.shipped_bytes = 0
        self._written: dict[str, tuple[int, ...]] = {}
        self._mutex = threading.Lock()
        self._commit = threading.Lock()
        self._life = 0
        self._paused = False
        self._sign = time.monotonic()
        self._thread: threading.Thread | None = None

    @property
    def here(self) -> Side:
        """The side that is used."""
        return self.sides[int(self.over)]

    @property
    def there(self) -> Side:
        """The side that is copied to."""
        return self.sides[int(not self.over)]

    # --- rounds -------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Ship all that follows, once, in the background; while that is under way there is nothing to do."""
        with self._mutex:
            if not self._paused and (self._thread is None or not self._thread.is_alive()):
                self._thread = threading.Thread(
                    target=self._round, args=(self._life,), name="volmgr-replicas", daemon=True
                )
                self._thread.start()

    def finish(self, quiet_seconds: float) -> bool:
        """Ship all that follows as it is from now on, and wait for the end.

        :param quiet_seconds: after so long without a sign of life it is given up.
        :returns: whether it has come to its end.
        """
        self._sign = time.monotonic()
        if not self._wait(quiet_seconds):
            return False
        self.begin()
        return self._wait(quiet_seconds)

    @contextlib.contextmanager
    def stopped(self, quiet_seconds: float = TURN_SECONDS) -> Iterator[None]:
        """Have nothing shipped for the length of a block, and forget what was seen of it.

        What is under way is broken off; should it hang, it makes no point whole any more, whenever it goes on.
        """
        self._paused = True
        try:
            with self._commit:
                self._life += 1
            self._sign = time.monotonic()
            if not self._wait(quiet_seconds):
                LOG.warning("What was being copied from %s hangs, and is left to itself", self.here)
            yield
        finally:
            for seen in (self.troubles, self.reached, self._written):
                seen.clear()
            self._paused = False

    def _wait(self, quiet_seconds: float) -> bool:
        thread = self._thread
        while thread is not None and thread.is_alive():
            thread.join(min(1.0, quiet_seconds))
            if time.monotonic() - self._sign > quiet_seconds:
                return not thread.is_alive()
        return True

    def _round(self, life: int) -> None:
        try:
            found = self.here.vg.report()
            if replicated(found):
                self._watch_pool()
            for object_id, volume_id in replicated(found).items():
                if self._life != life:
                    break
                if stance(found.volumes.get(names.object_name("volume", object_id))) == FOLLOWS:
                    self._follow(object_id, volume_id)
        except exception.VolmgrError as error:
            LOG.warning("The replicas of %s are not looked after: %s", self.here, error)
        except Exception:
            LOG.exception("The replicas of %s are not looked after", self.here)

    def _watch_pool(self) -> None:
        try:
            self.there.thin_pool.watch()
        except exception.VolmgrError as error:
            # Each volume that cannot be shipped into it says so by itself.
            LOG.warning("The pool %s is not looked after: %s", self.there, error)

    def _follow(self, object_id: str, volume_id: str) -> None:
        self._sign = time.monotonic()
        try:
            self.ship(object_id, volume_id)
        except exception.Cancelled:
            LOG.info("The copying of volume %s to its replica was broken off for something else", volume_id)
        except (exception.VolmgrError, OSError) as error:
            self.troubles[object_id] = str(error)
            LOG.warning("The replica of volume %s does not follow: %s", volume_id, error)

    # --- one volume ---------------------------------------------------------------------------------------------

    def ship(self, object_id: str, volume_id: str) -> None:
        """Bring the replica of one volume up to this moment, if it follows and anything was written to it.

        :raises Cancelled: somebody else wants to work on it, or the sides are exchanged.
        """
        trip = _Trip(self.here, self.there, object_id, volume_id, self._life)
        now, written = datetime.datetime.now(datetime.UTC), _writes(trip)
        if written is not None and self._written.get(object_id) == written:
            self.reached[object_id] = now
            return
        with self.turns.held(object_id):
            here, there = trip.here.vg.report(), trip.there.vg.report()
            if stance(here.volumes.get(trip.volume)) != FOLLOWS:
                return
            mine, theirs = points_of(here, object_id), points_of(there, object_id)
            number = max((item.number for item in (*mine, *theirs)), default=0) + 1
            self._take(trip, number, _clear(trip, mine, theirs))
            with self._commit:
                self._check(trip)
                _forget_older(trip, here, there, number)
            self.reached[object_id] = now
            self.troubles.pop(object_id, None)
            if written is not None:
                self._written[object_id] = written

    def _take(self, trip: _Trip, number: int, base: Point | None) -> None:
        """Take a point here and make it there.

        :param base: the newest one that both sides have.
        """
        here, there = trip.here, trip.there
        here.thin_pool.admit()
        there.thin_pool.admit()
        name = names.point_name(trip.object_id, number)
        taken = taken_tag(datetime.datetime.now(datetime.UTC))
        tags = (*names.lv_tags(trip.object_id, "volume", trip.volume_id), taken)
        here.vg.snapshot(name, trip.volume, (*tags, point_tag(WHOLE)))
        killpoints.reach("lvm/ship/taken")
        with lvm_copy.opened(here.vg.path(name), write=False) as fd:
            size = lvm_copy.size_of(fd)
        if base is None:
            there.vg.create_thin(name, size, there.pool, tags)
        else:
            there.vg.snapshot(name, base.name, tags)
            if base.size_bytes < size:
                there.vg.extend(name, size)
        killpoints.reach("lvm/ship/begun")
        self._copy(trip, name, base, size)
        killpoints.reach("lvm/ship/copied")
        with self._commit:
            self._check(trip)
            there.vg.retag(name, add=[point_tag(WHOLE)])
        killpoints.reach("lvm/ship/whole")

    def _copy(self, trip: _Trip, name: str, base: Point | None, size: int) -> None:
        def told(fraction: float) -> None:
            killpoints.reach("lvm/ship/copying")
            self._sign = time.monotonic()
            self._check(trip)
            trip.there.thin_pool.admit()  # a pool that is full would take the replicas that are whole with it

        here, options = trip.here, self._configuration
        source, destination = here.vg.path(name), trip.there.vg.path(name)
        pace = lvm_copy.Pace(int(options.volume_copy_bps_limit))
        chunk = lvm_copy.block(options.volume_dd_blocksize)
        if base is None:
            lvm_copy.copy(source, destination, size, told, sparse=True, pace=pace, chunk=chunk)
            return
        note = Path(options.state_path) / "thin-metadata" / f"{here.vg.name}-{here.pool}"
        found = here.vg.differing(here.pool, base.name, name, note)
        ranges = list(zip(found.starts, found.ends, strict=True))
        count = lvm_copy.copy_ranges(source, destination, ranges, told, pace=pace, chunk=chunk)
        self.shipped_bytes += count
        LOG.info("Shipped %d bytes of %s", count, name)

    def _check(self, trip: _Trip) -> None:
        if self._life != trip.life or self.turns.asked(trip.object_id):
            raise exception.Cancelled

    # --- changes of what there is -------------------------------------------------------------------------------

    def forget(self, object_id: str) -> None:
        """Let the next cycle of a volume look anew."""
        self._written.pop(object_id, None)
        self.reached.pop(object_id, None)
        self.troubles.pop(object_id, None)

    def drop(self, object_id: str) -> None:
        """Remove all that is of a replica, on both sides; the caller has the turn. A side that is away is told."""
        self.forget(object_id)
        volume = names.object_name("volume", object_id)
        for side in self.sides:
            try:
                found = side.vg.report()
            except exception.VolmgrError as error:
                LOG.warning("What %s has of the replica of %s stays for now: %s", side, object_id, error)
                continue
            for item in points_of(found, object_id):
                _remove(side, item.name)
            if side is self.there and (old := found.volumes.get(volume)) is not None and stance(old) is not None:
                _remove(side, volume)

    def outdate(self, object_id: str) -> None:
        """Let no point of the other side be taken for the volume any more; the caller has the turn."""
        self.forget(object_id)
        for item in points_of(self.there.vg.report(), object_id):
            if item.state == WHOLE:
                self.there.vg.retag(item.name, add=[point_tag(BASE)], remove=[point_tag(WHOLE)])

    def whole(self, object_id: str) -> Point | None:
        """Return the last state of a volume that the other side has, None if there is none."""
        return newest_whole(self.there.vg.report(), object_id)


def _clear(trip: _Trip, mine: list[Point], theirs: list[Point]) -> Point | None:
    """Remove what earlier cycles have left; returns the newest point that both sides have."""
    base = common(mine, theirs)
    newest = next((item for item in theirs if item.state == WHOLE), None)
    kept = {base.number if base else 0, newest.number if newest else 0}
    for item in theirs:
        if not item.complete or item.number not in kept:
            trip.there.vg.remove(item.name)
    for item in mine:
        if base is None or item.number != base.number:
            trip.here.vg.remove(item.name)
    return base


def _forget_older(trip: _Trip, here: Report, there: Report, number: int) -> None:
    """Remove what a new whole point has made needless, on both sides."""
    for side, found in ((trip.there, there), (trip.here, here)):
        for item in points_of(found, trip.object_id):
            if item.number != number:
                _remove(side, item.name)
    stale = there.volumes.get(trip.volume)
    if stale is not None and stance(stale) is not None:
        _remove(trip.there, stale.name)


def _remove(side: Side, name: str) -> None:
    try:
        side.vg.remove(name)
    except exception.VolmgrError as error:
        LOG.warning("%s/%s stays for now: %s", side.vg.name, name, error)


def _writes(trip: _Trip) -> tuple[int, ...] | None:
    """Return what identifies the device of a volume and how much it was written to, None if that is unknown.

    Source: Documentation/admin-guide/iostats. What is on its way is counted when it is done, so it makes the next look
    differ.
    """
    try:
        device = os.stat(trip.here.vg.path(trip.volume)).st_rdev
        folder = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
        words, made = (folder / "stat").read_text().split(), os.stat(folder).st_ino
    except OSError:
        return None
    # Writes, their sectors, discards, their sectors.
    return (device, made, *(int(word) for place in (4, 6, 11, 13) for word in words[place : place + 1]))
