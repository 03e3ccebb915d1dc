# SPDX-License-Identifier: Apache-2.0
"""RabbitMQ is killed and started again in mid-flight: what was acknowledged runs, what was not is sent again."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest

from volmgr.testing.chaos.raids import Raiders
from volmgr.testing.chaos.stage import Stage
from volmgr.testing.servers import RabbitMQServer

pytest_plugins = ("volmgr.testing.servers.pytest_fixtures",)

pytestmark = [pytest.mark.timeout(600), pytest.mark.extended]

QUORUM = {"rabbit_quorum_queue": True, "rabbit_transient_quorum_queue": True, "kombu_reconnect_delay": 0.2}
REQUESTS, ANSWER_SECONDS = 12, 5.0


def test_the_broker_dies_and_comes_back(
    make_stage: Callable[..., Stage], rabbitmq_server: RabbitMQServer
) -> None:
    default = {
        "transport_url": rabbitmq_server.url,
        "volume_topic": f"volume-{uuid.uuid4().hex[:8]}",
        "control_exchange": f"exchange-{uuid.uuid4().hex[:8]}",
    }
    stage = make_stage(default=default, sections={"oslo_messaging_rabbit": QUORUM}).start()
    raiders = Raiders(stage, 4, by_target=False)
    for actor in raiders.actors:
        actor.client.api.timeout = ANSWER_SECONDS
    for also_the_daemon in (False, True):
        with raiders.working():
            raiders.work(REQUESTS)
            rabbitmq_server.kill()
            if also_the_daemon:
                stage.daemon.kill()
            rabbitmq_server.start()
            if also_the_daemon:
                stage.start()
            raiders.work(REQUESTS)
        assert raiders.look() == []
    assert raiders.close().violations == []
    stage.daemon.stop()
