# SPDX-License-Identifier: Apache-2.0
"""How a worker joins its cluster and leaves it: whether its backend can be shared, and how the dead are fenced."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volmgr import deadline, exception, incarnation
from volmgr.cluster import ClusterLocks, Member, Membership, Timer, boot_id, machine_id
from volmgr.db.engine import Database
from volmgr.locks import KeyedLocks

if TYPE_CHECKING:
    from volmgr.service import Worker

Fence = Callable[[Member], bool]
HOST, API, NONE = "host", "api", "none"


class _Kernel:
    """The kernel's timer; see :mod:`volmgr.deadline`."""

    def __init__(self) -> None:
        self._deadline = deadline.Deadline()

    def now(self) -> float:
        return deadline.now()

    def set(self, at: float | None) -> None:
        self._deadline.set(at)


def service_of(conf: Any, backend: str) -> str:
    """Return the name of a backend, which its volumes bear: that of the cluster, or of the one worker."""
    return f"{conf.cluster or conf.host}@{backend}"


def check(conf: Any, driver: Any) -> None:
    """Return if several workers can serve a backend together.

    :raises InvalidConfiguration: they cannot.
    """
    target = driver.target_driver
    if conf.cluster == conf.host:
        raise exception.InvalidConfiguration(
            reason=f"the cluster and its member are both named {conf.host}", hint="Change host or cluster"
        )
    if str(conf.transport_url).startswith("unix:"):
        raise exception.InvalidConfiguration(
            reason="a cluster needs a transport that its members share", hint="Set transport_url to rabbit://…"
        )
    if target is not None and not target.clustered:
        raise exception.InvalidConfiguration(
            reason=f"each worker has a {type(target).__name__} of its own, which others cannot sync",
            hint="Serve this backend without cluster, or with a driver that answers connections itself",
        )


def fence_of(driver: Any, boot: str) -> Fence:
    """Return what makes sure that a member, whose lease has ended, writes no more; it returns False where it cannot.

    :param boot: the start of this machine, see :func:`volmgr.cluster.boot_id`.
    """

    def fence(member: Member) -> bool:
        if driver.fencing == API:
            return True
        if driver.fencing == HOST and member.boot == boot:
            return incarnation.end_life(Path(member.lock_path), member.id)
        return False

    return fence


def membership(worker: Worker, *, timer: Timer | None = None, fence: Fence | None = None) -> Membership | None:
    """Return a worker's membership of its cluster, not joined yet; None where it serves alone.

    :param timer: what ends it at its lease's end; the kernel's by default. :param fence: see :func:`fence_of`.
    :raises InvalidConfiguration: its backend cannot be shared.
    """
    conf, life = worker.conf, worker.incarnation
    if not conf.cluster:
        return None
    check(conf, worker.driver)
    boot = boot_id()
    return Membership(
        worker.database,
        worker.clock,
        Member(life.id, worker.host, worker.name, machine_id(), boot, str(life.path.absolute())),
        lease=conf.cluster_lease,
        grace=conf.cluster_grace,
        timer=timer or _Kernel(),
        fence=fence or fence_of(worker.driver, boot),
        # However many requests wait for a connection, the lease does not.
        renewals=None if worker.database.kind == "sqlite" else _renewals(conf),
    )


def _renewals(conf: Any) -> Database:
    """Return the database for renewals: a connection that is lost is noticed while there is time for another one."""
    patience = max(1.0, conf.cluster_lease / 6)
    return Database(
        conf.database.connection,
        pool_size=1,
        busy_timeout=patience,
        statement_timeout=patience,
        retry_timeout=patience,
    )


def locks(of: Membership | None) -> KeyedLocks:
    """Return the locks of a worker's exports: in its process, or with the other members."""
    return KeyedLocks() if of is None else ClusterLocks(of, KeyedLocks())


def join(worker: Worker) -> None:
    """Make a worker a member of its cluster, if it has one, and look after the lease and the others from now on."""
    if (own := worker.membership) is not None:
        own.join()
        worker.spawn(own.keep, "lease")
        worker.spawn(lambda: own.watch(lambda: _adopt(worker)), "members")


def _adopt(worker: Worker) -> None:
    """Take up operations of nobody, and give back locks that could not be given back before."""
    if isinstance(locks := worker.exports.locks, ClusterLocks):
        locks.give_owed()
    if not worker.dispatcher.paused:
        worker.dispatcher.recover()


def leave(worker: Worker, drained: bool) -> bool:
    """Take a worker out of its cluster at its end; returns whether it may let go of what is unfinished.

    :param drained: whether none of its operations runs any more. Where one does, it is not given up before the worker
        has certainly ended: others would run it at the same time.
    """
    if worker.membership is None:
        return True
    return worker.membership.leave(worker.exports.locks.busy if drained else lambda: True)
