# SPDX-License-Identifier: Apache-2.0
"""A call over ``unix://`` beside the same call over ``rabbit://``, and what our server and client add to a bare one.

The endpoint returns its argument: no verb, no database. The broker is a private RabbitMQ of the distribution.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
from collections.abc import Iterator
from typing import Any

from benchmarks.agent import Agent
from benchmarks.figures import Figure, Scale, main, ratios, tell
from benchmarks.rpc_echo import TOPIC, Echo, configuration, many_callers, one_caller

GROUP = "RPC: a call whose endpoint returns its argument"
BOUND_MS = {"eventlet": 0.40, "threading": 0.35}
CALLERS = 50
TURNS = 20
NAME = "echo@here"


# --- in the agents -------------------------------------------------------------------------------------------------


def serve(state: dict[str, Any], url: str, ours: bool) -> None:
    """Serve the echo with oslo.messaging alone, or with our server."""
    import oslo_messaging

    from volmgr import conf as config
    from volmgr.policy.guard import Guard
    from volmgr.rpc.endpoint import answered, journalled
    from volmgr.rpc.server import make_server
    from volmgr.rpc.transport import get_transport

    class Ours:
        """The same endpoint, behind what every verb of ours stands behind."""

        target = oslo_messaging.Target(version="1.0")

        def ready(self) -> None:
            """Every changing verb asks this first."""

        def __init__(self) -> None:
            self.guard = Guard(config.load([]))

        def authorise(self, context: Any, verb: str, arguments: dict[str, Any]) -> Any:
            """As the manager does it."""
            return self.guard.authorise(context, verb, arguments)

        def ended(self, *_: Any) -> None:
            """What every verb's end is told to; a worker that nobody watches does nothing with it."""

        @answered(value=lambda name, value: value)
        def echo(self, context: Any, value: Any) -> Any:
            """Answer as a reading verb does."""
            return value

        @journalled
        def change(self, context: Any, value: Any) -> Any:
            """Answer as a changing verb does, whose message is acknowledged after it."""
            return value

    transport = get_transport(configuration(), url)
    if ours:
        server: Any = make_server(transport, topic=f"{TOPIC}-ours", name=NAME, endpoints=[Ours()])
    else:
        target = oslo_messaging.Target(topic=TOPIC, server=NAME)
        server = oslo_messaging.get_rpc_server(transport, target, [Echo()])
    server.start()
    state["server"] = server


class _OurClient:
    """:class:`volmgr.rpc.client.VolumeAPI` with the signature of oslo.messaging's client."""

    def __init__(self, url: str) -> None:
        from volmgr import conf as config
        from volmgr.context import RequestContext
        from volmgr.rpc.client import VolumeAPI

        conf = config.load([])
        conf.set_override("volume_topic", f"{TOPIC}-ours")
        self.api = VolumeAPI(url, conf=conf)
        self.context = RequestContext(is_admin=True, project_id="project", user_id="user", overwrite=False)

    def call(self, _context: Any, method: str, /, **arguments: Any) -> Any:
        return self.api.call(self.context, method, host=NAME, **arguments)


class _OurChanger(_OurClient):
    """The same for a changing verb, with its request key."""

    def call(self, _context: Any, _method: str, /, **arguments: Any) -> Any:
        return self.api.change(self.context, "change", host=NAME, **arguments)


def connect(state: dict[str, Any], url: str, kind: str) -> None:
    """Open a client: ``bare``, ``ours`` or ``change``."""
    import oslo_messaging

    from volmgr.rpc.transport import get_transport

    if kind == "bare":
        conf = configuration()
        client: Any = oslo_messaging.get_rpc_client(
            get_transport(conf, url), oslo_messaging.Target(topic=TOPIC, server=NAME)
        )
        if url.startswith("rabbit"):
            conf.set_override("rpc_conn_pool_size", 2 * CALLERS, group="oslo_messaging_rabbit")
    else:
        client = _OurClient(url) if kind == "ours" else _OurChanger(url)
    one_caller(client, 100)
    state["client"] = client


def times(state: dict[str, Any], calls: int) -> list[float]:
    """Return how long calls took, one after the other, in ms."""
    return one_caller(state["client"], calls)


def rate(state: dict[str, Any], calls: int) -> float:
    """Return the calls per second of many callers together."""
    return many_callers(state["client"], calls, CALLERS)[1]


# --- in the parent -------------------------------------------------------------------------------------------------


class _Pairs:
    """Servers and clients by name, all open at once, measured in turns."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._clients: dict[str, Agent] = {}
        self.values: dict[str, list[float]] = {}

    def open(self, name: str, url: str, mode: str, kind: str) -> None:
        server = self._stack.enter_context(Agent(mode))
        server.do("benchmarks.rpc:serve", url=url, ours=kind != "bare")
        self.client(name, url, mode, kind)

    def client(self, name: str, url: str, mode: str, kind: str) -> None:
        client = self._clients[name] = self._stack.enter_context(Agent(mode))
        client.do("benchmarks.rpc:connect", url=url, kind=kind)

    def round(self, calls: int) -> None:
        """Measure everything in turns of a few calls, so that what else the machine does meets all alike."""
        found: dict[str, list[float]] = {name: [] for name in self._clients}
        for _turn in range(TURNS):
            for name, client in self._clients.items():
                found[name] += client.do("benchmarks.rpc:times", calls=max(1, calls // TURNS))
        for name, taken in found.items():
            self.values.setdefault(name, []).append(statistics.median(taken))

    def rates(self, calls: int, names: tuple[str, ...]) -> None:
        for name in names:
            found = self._clients[name].do("benchmarks.rpc:rate", calls=calls)
            self.values.setdefault(f"{name} rate", []).append(found)


@contextlib.contextmanager
def _rabbit() -> Iterator[str]:
    from volmgr.testing.servers import RabbitMQServer

    tell("starting a private RabbitMQ")
    server = RabbitMQServer()
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


def run(scale: Scale) -> list[Figure]:
    """Measure all pairs in turns."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="volmgr-bench-"))
        rabbit = stack.enter_context(_rabbit())
        pairs = _Pairs(stack)
        for mode in BOUND_MS:
            unix = f"unix://{folder}/{mode}"
            pairs.open(f"unix {mode} bare", unix, mode, "bare")
            pairs.open(f"unix {mode} ours", unix, mode, "ours")
        pairs.open("rabbit bare", rabbit, "eventlet", "bare")
        pairs.open("rabbit ours", rabbit, "eventlet", "ours")
        pairs.client("rabbit change", rabbit, "eventlet", "change")
        for number in range(scale.rounds):
            tell(f"rpc: round {number + 1} of {scale.rounds}")
            pairs.round(scale.of(400, 20))
            pairs.rates(scale.of(2000, 100), ("unix eventlet bare", "unix eventlet ours", "rabbit bare"))
    return _figures(pairs.values)


def _figures(values: dict[str, list[float]]) -> list[Figure]:
    found = []
    for mode, bound in BOUND_MS.items():
        found.append(Figure(f"unix://, {mode}: median call", values[f"unix {mode} bare"], "ms", bound, group=GROUP))
    rabbit = values["rabbit bare"]
    found += [
        Figure("rabbit://, eventlet: median call", rabbit, "ms", group=GROUP),
        Figure(
            "unix:// against rabbit://", ratios(values["unix eventlet bare"], rabbit), "x", 0.25, group=GROUP
        ),
        Figure(
            "rabbit://: our server and client against bare ones",
            ratios(values["rabbit ours"], rabbit), "x", 1.15, group=GROUP,
        ),
        Figure(
            "rabbit://: the same, acknowledged after the reply",
            ratios(values["rabbit change"], rabbit), "x", 1.15, group=GROUP,
            note="a changing verb: its message is acknowledged when its intent is stored, not before",
        ),
    ]
    for mode in BOUND_MS:
        found.append(
            Figure(f"unix://, {mode}: our server and client", values[f"unix {mode} ours"], "ms", group=GROUP)
        )
    for name, text in (("unix eventlet bare", "unix://"), ("unix eventlet ours", "unix://, ours"),
                       ("rabbit bare", "rabbit://")):
        found.append(Figure(f"{text}: calls of {CALLERS} callers", values[f"{name} rate"], "/s", group=GROUP))
    return found


if __name__ == "__main__":
    main(run)
