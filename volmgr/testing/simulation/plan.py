# SPDX-License-Identifier: Apache-2.0
"""What one schedule is: who asks what, what goes wrong, and from which seed the order is drawn; as data.

The same plan gives the same schedule, to the last step, in every process. A plan can be written down as JSON, so a
schedule that showed a defect stays what it was when the generator of plans changes.
"""

from __future__ import annotations

import dataclasses
import json
import uuid
from dataclasses import dataclass, field
from typing import Any

_IDS = uuid.UUID("2e0b4b53-5f4c-4e1f-9d5c-53c0f9d9a7b1")


def uuid_of(name: str) -> str:
    """Return the UUID that a symbolic name such as ``v0`` stands for."""
    return str(uuid.uuid5(_IDS, name))


@dataclass(frozen=True)
class Request:
    """One message of a client.

    :param name: unique in its plan; its request key is made from it.
    :param verb: a method of the volume manager. :param args: its arguments; ``@v0`` stands for a UUID, ``%x0`` for the
        key of an offer, and in the verbs on operations ``$name`` for the operation that the request of that name got.
    :param client: clients ask at the same time, the requests of one client come one after the other.
    :param wait: whether the client waits for the operation's end before it goes on.
    :param late: seconds after which the message arrives once more, for each further copy.
    """

    name: str
    verb: str
    args: dict[str, Any] = field(default_factory=dict)
    client: int = 0
    wait: bool = False
    late: tuple[float, ...] = ()


@dataclass(frozen=True)
class Strike:
    """Something that goes wrong at a place in the code, the n-th time that the schedule comes there.

    :param at: the label of a yield point, or ``step``, which is every one of them.
    :param action: ``crash``, ``fail``, ``delay`` (``seconds`` of virtual time), ``lost`` (a commit of unknown outcome).
    :param error: the code of the error of ``fail``.
    """

    at: str
    action: str
    nth: int = 1
    error: str = "volmgr.backend_down"
    seconds: float = 0.0


@dataclass(frozen=True)
class Plan:
    """One schedule.

    :param stage: what is there at the beginning, see :data:`volmgr.testing.simulation.stages.STAGES`.
    :param order: the seed of every decision of the scheduler.
    :param switch: the probability that another thread goes on at a yield point.
    :param drift: the probability that a thread is slow there, seconds to minutes.
    :param reboot: whether a crash takes the target's exports with it. :param retention: see ``trash_retention``.
    :param audits: whether the worker compares both sides in the background, at its start and now and then.
    :param orphans: what else is in the storage, see :func:`volmgr.testing.simulation.orphans.place`.
    :param steer: what an operator does with operations that are parked for him, ``retry`` or ``abandon``.
    :param transport: by which the target is reached: ``iscsi``, ``fibre_channel`` (numbers for each port and
        initiator) or ``aoe`` (an address for each export).
    """

    requests: tuple[Request, ...]
    strikes: tuple[Strike, ...] = ()
    stage: str = "empty"
    order: int = 0
    switch: float = 0.2
    drift: float = 0.0
    reboot: bool = False
    retention: int = 0
    steer: str = "retry"
    audits: bool = False
    orphans: tuple[str, ...] = ()
    transport: str = "iscsi"

    def to_json(self) -> str:
        """Return the plan as one line of JSON."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Return the plan that :meth:`to_json` wrote."""
        values = json.loads(text)
        requests = tuple(Request(**{**item, "late": tuple(item.get("late", ()))}) for item in values.pop("requests"))
        strikes = tuple(Strike(**item) for item in values.pop("strikes", ()))
        return cls(requests, strikes, **{**values, "orphans": tuple(values.get("orphans", ()))})

    def but(self, **changes: Any) -> Plan:
        """Return a plan that differs in some fields."""
        return dataclasses.replace(self, **changes)
