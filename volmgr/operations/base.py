# SPDX-License-Identifier: Apache-2.0
"""What an operation is: claims, steps, a pivot at most, and a closing transaction.

One class per changing verb. The class says which rows it must hold, which steps make it so, and what SQL says once they
are done; :mod:`volmgr.tasks` does the rest, alive or after a crash, by the same path. This module knows no RPC.
"""

from __future__ import annotations

import abc
import dataclasses
import enum
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

from volmgr import exception, states, validate
from volmgr.db.admission import MISSING

if TYPE_CHECKING:
    from volmgr.context import RequestContext
    from volmgr.db.admission import Admitting
    from volmgr.db.closing import Closing
    from volmgr.placement import Place
    from volmgr.tasks import Backend, Task
    from volmgr.types import Volume

MACHINES = {
    "group": states.CONSISTENCY_GROUP,
    "cgsnapshot": states.CGSNAPSHOT,
    "volume": states.VOLUME,
    "snapshot": states.SNAPSHOT,
    "backup": states.BACKUP,
}


class Lane(enum.StrEnum):
    """Which pool of threads a step runs in: short never waits for long."""

    CONTROL = "control"
    BULK = "bulk"
    OBSERVE = "observe"


class Rerun(enum.Enum):
    """How a step that had begun when its worker died is run again."""

    REPEAT = "repeat"  # doing it twice is the same as once
    REBUILD = "rebuild"  # undo, then do
    RECOGNISE = "recognise"  # the driver says whether it had been done


class Policy(enum.StrEnum):
    """What happens when an operation meets one that holds the same resource."""

    WAIT = "wait"
    BOTH = "both"
    SAME = "same result"
    CONFLICT = "conflict"


@dataclass(frozen=True)
class Claim:
    """A hold on one resource.

    :param resource: the noun, one of :data:`MACHINES`; rows are locked in that order.
    :param event: the event of the resource's state machine; it gives the allowed statuses, and the status meanwhile.
    :param exclusive: else shared: the resource keeps its status and cannot be claimed exclusively meanwhile.
    :param childless: the volume must have no snapshots.
    """

    resource: str
    id: str
    event: str
    exclusive: bool = True
    childless: bool = False

    @property
    def sources(self) -> tuple[str, ...]:
        return MACHINES[self.resource].sources(self.event)

    @property
    def status(self) -> str | None:
        """The transitional status, for an exclusive claim."""
        return MACHINES[self.resource].target(self.event) if self.exclusive else None

    def to_json(self) -> dict[str, Any]:
        """The form kept in the journal."""
        return {"resource": self.resource, "id": self.id, "exclusive": self.exclusive}


@dataclass(frozen=True)
class Step:
    """One thing to do outside SQL.

    :param do: makes it so; what it returns is kept in the journal under the step's name.
    :param undo: takes back whatever ``do`` may have done, also half of it, also nothing.
    :param recognise: after a crash: returns what ``do`` would have returned, or raises NotFound if it was not done.
    :param pivot: what to swap in SQL once the step is done; from that transaction on the operation only goes forward.
        One that returns False has changed nothing: the step was none this time, and there is a way back still.
    :param exports_of: the resource whose exports the pivot changes: it waits until no sync follows them.
    """

    name: str
    do: Callable[[], Any]
    undo: Callable[[], None] | None = None
    rerun: Rerun = Rerun.REPEAT
    recognise: Callable[[], Any] | None = None
    lane: Lane = Lane.CONTROL
    pivot: Callable[[Closing], bool | None] | None = None
    exports_of: str | None = None


def arg(check: validate.Check, **kwargs: Any) -> Any:
    """Return a dataclass field whose value passes ``check`` when a request is parsed."""
    return field(metadata={"check": check}, **kwargs)


@dataclass(frozen=True)
class Args:
    """The arguments of a verb: validator, journal form and documentation in one."""

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Self:
        """Return checked arguments.

        :raises Invalid: an argument is unknown, missing or wrong; it is named.
        """
        fields = {item.name: item for item in dataclasses.fields(cls)}
        for key in values:
            if key not in fields:
                raise exception.Invalid(f"{validate.shorten(key)} is not an argument of this verb", field=str(key)[:60])
        checked: dict[str, Any] = {}
        for name, item in fields.items():
            if name in values:
                checked[name] = item.metadata["check"](name, values[name])
            elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
                raise exception.Invalid(f"{name} is missing", field=name)
        return cls(**checked)

    def to_json(self) -> dict[str, Any]:
        """The form kept in the journal."""
        return {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}


def request_key(context: RequestContext, verb: str, arguments: Args) -> str:
    """Return what makes a request unique: the client's own key, else the request id with verb and arguments."""
    if context.request_key:
        return context.request_key
    text = json.dumps([context.request_id, verb, arguments.to_json()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


A = TypeVar("A", bound=Args)


class Operation(abc.ABC, Generic[A]):
    """A changing verb. Instances are made per run, alive or in recovery, and keep no state between steps.

    :cvar verb: its name on the wire and in the journal. :cvar version: a worker runs only versions that it knows.
    :cvar args: the class of its arguments. :cvar resource: the noun of :meth:`resource_id`.
    :cvar needs: verbs of the driver; one that it does not support refuses the request before anything changes.
    :cvar lane: where it runs when its steps do not say otherwise. :cvar asks: whether :meth:`prepare` asks the
        backend, which only a request that is new and supported may do.
    :cvar persistent: nobody waits for it and it has to succeed in the end: from its pivot on every failure is tried
        again, for ever. :cvar while_frozen: whether a frozen backend takes it. :cvar while_down: whether it runs while
        the backend is down, as it may bring that up elsewhere.
    """

    verb: ClassVar[str]
    version: ClassVar[int] = 1
    args: ClassVar[type[Args]]
    resource: ClassVar[str] = "volume"
    needs: ClassVar[tuple[str, ...]] = ()
    lane: ClassVar[Lane] = Lane.CONTROL
    asks: ClassVar[bool] = False
    persistent: ClassVar[bool] = False
    while_frozen: ClassVar[bool] = False
    while_down: ClassVar[bool] = False

    def __init__(self, arguments: A) -> None:
        self.a = arguments

    @property
    @abc.abstractmethod
    def resource_id(self) -> str:
        """The id of the resource that the operation is about."""

    def lane_on(self, driver: Any) -> Lane:
        """The lane for this request on that driver; copying ones give :attr:`Lane.BULK` where the driver copies."""
        return self.lane

    def required(self) -> tuple[str, ...]:
        """The driver verbs that this very request needs; by default those of the class."""
        return self.needs

    @property
    def reserved(self) -> Sequence[str]:
        """The quota reservations that were made for this request."""
        return getattr(self.a, "reservations", None) or ()

    def belongs(self, backend: Backend, volume: Callable[[str], Volume]) -> None:
        """Return if the request is for this worker; asked where :attr:`asks` is set, before what its driver supports.

        Another worker's driver may support what this one's does not.

        :param volume: as for :meth:`prepare`. :raises Moved: it is for another worker.
        """

    def prepare(self, backend: Backend, context: RequestContext, volume: Callable[[str], Volume]) -> Any:
        """Find out what :meth:`admit` needs and what needs no transaction; it is ``tx.prepared`` there.

        :param volume: returns a volume that the caller may see, or raises VolumeNotFound.
        """
        return None

    def admitted(self, backend: Backend, tx: Admitting) -> None:
        """Note in memory what follows from an admission that has committed."""

    def arrive(self, tx: Admitting) -> None:
        """Make the rows that only the worker that runs the operation can make; in the transaction that starts it."""

    def again(self, task: Task, error: exception.VolmgrError) -> Place | None:
        """Return where an operation that has failed, and is undone, is to be tried again; None: it has failed."""
        return None

    def move(self, task: Task, tx: Closing, place: Place) -> None:
        """Write that the operation goes on at another place."""

    def claims(self) -> Sequence[Claim]:
        """What must be held, in the order of :data:`MACHINES`."""
        return ()

    def admit(self, tx: Admitting) -> None:
        """Make the rows and quota charges that stand from admission on; runs once, in the admitting transaction."""

    def claimed(self, tx: Admitting) -> None:
        """Check and record what depends on the claimed rows; runs in the transaction that takes the claims."""

    @abc.abstractmethod
    def steps(self, task: Task) -> Sequence[Step]:
        """What to do outside SQL, in order."""

    @abc.abstractmethod
    def commit(self, task: Task, tx: Closing) -> Any:
        """Write what is so now; runs in the closing transaction and returns the operation's JSON result."""

    def committed(self, task: Task) -> None:
        """Make level-triggered state follow what :meth:`commit` wrote; a start does the same, so no crash matters."""

    def absent(self, claim: Claim) -> Any:
        """Return the result when a resource to be claimed does not exist; by default that is an error.

        :raises NotFound: naming the resource.
        """
        raise MISSING[claim.resource](id=claim.id)

    def abort(self, task: Task, tx: Closing, error: exception.VolmgrError) -> None:
        """Write what stands after a failure whose steps are undone; claims that are left are released after it."""
