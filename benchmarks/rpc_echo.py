# SPDX-License-Identifier: Apache-2.0
"""How long a call takes: a server process with a trivial endpoint, a client process, one line of JSON.

It measures the whole of oslo.messaging's client and server on the given transport, and nothing of volmgr's verbs.
Run it on a quiet machine, several times: ``python benchmarks/rpc_echo.py --mode eventlet --url unix:///tmp/rpc``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from typing import Any

TOPIC = "rpc-echo"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", choices=("eventlet", "threading"), default="eventlet", help="threads of both ends")
    parser.add_argument("--server-mode", choices=("eventlet", "threading"), help="threads of the server, if others")
    parser.add_argument("--url", default="unix:///run/volmgr/rpc", help="transport_url, unix:// or rabbit://")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions; the best one is printed")
    parser.add_argument("--calls", type=int, default=2000, help="calls in each round, of each kind")
    parser.add_argument("--callers", type=int, default=50, help="callers at once in the concurrent part")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def configuration() -> Any:
    from oslo_config import cfg

    conf = cfg.ConfigOpts()
    conf([], project="volmgr", default_config_files=[])
    return conf


class Echo:
    """The trivial endpoint."""

    def echo(self, ctxt: dict[str, Any], value: Any) -> Any:
        return value


def serve(url: str) -> None:
    """Answer until the parent closes our standard input."""
    import select

    import oslo_messaging

    from volmgr.rpc.transport import get_transport

    target = oslo_messaging.Target(topic=TOPIC, server="echo")
    server = oslo_messaging.get_rpc_server(get_transport(configuration(), url), target, [Echo()])
    server.start()
    print("ready", flush=True)
    select.select([sys.stdin], [], [])  # not read(): it would stop all green threads
    server.stop()
    server.wait()


def one_caller(client: Any, calls: int) -> list[float]:
    """Return the times of calls, one after the other, in ms."""
    times = []
    for number in range(calls):
        start = time.perf_counter()
        client.call({}, "echo", value=number)
        times.append((time.perf_counter() - start) * 1000)
    return times


def many_callers(client: Any, calls: int, callers: int) -> tuple[list[float], float]:
    """Return the times of calls in ms, and calls per second of all callers together."""
    import threading

    times: list[float] = []

    def run() -> None:
        times.extend(one_caller(client, max(1, calls // callers)))

    threads = [threading.Thread(target=run) for _ in range(callers)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times, len(times) / (time.perf_counter() - start)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    import oslo_messaging

    from volmgr.rpc.transport import get_transport

    conf = configuration()
    if options.url.startswith("rabbit"):
        import oslo_messaging._drivers.impl_rabbit

    transport = get_transport(conf, options.url)
    if options.url.startswith("rabbit"):
        conf.set_override("rpc_conn_pool_size", 2 * options.callers, group="oslo_messaging_rabbit")
    client = oslo_messaging.get_rpc_client(transport, oslo_messaging.Target(topic=TOPIC, server="echo"))
    one_caller(client, 200)
    single: list[list[float]] = []
    crowd: list[tuple[list[float], float]] = []
    for _round in range(options.rounds):
        single.append(one_caller(client, options.calls))
        crowd.append(many_callers(client, options.calls, options.callers))
    alone = min(single, key=statistics.median)
    together, rate = max(crowd, key=lambda item: item[1])
    transport.cleanup()
    return {
        "url": options.url.split(":", 1)[0],
        "mode": options.mode,
        "server_mode": options.server_mode or options.mode,
        "rounds": options.rounds,
        "one": {**summary(alone), "calls_per_s": round(1000 * len(alone) / sum(alone))},
        str(options.callers): {**summary(together), "calls_per_s": round(rate)},
    }


def summary(times: list[float]) -> dict[str, float]:
    return {
        "median_ms": round(statistics.median(times), 3),
        "p95_ms": round(statistics.quantiles(times, n=20)[-1], 3),
    }


def main() -> None:
    options = arguments()
    from volmgr import concurrency

    if options.serve:
        concurrency.setup(options.server_mode or options.mode)
        serve(options.url)
        return
    command = [sys.executable, __file__, "--serve", "--url", options.url, "--mode", options.server_mode or options.mode]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        try:
            if not server.stdout or server.stdout.readline().strip() != "ready":
                raise SystemExit("the server did not start")
            concurrency.setup(options.mode)
            print(json.dumps(measure(options)))
        finally:
            if server.stdin:
                server.stdin.close()
            server.wait(timeout=30)


if __name__ == "__main__":
    main()
