# SPDX-License-Identifier: Apache-2.0
"""Clients of earlier versions: what they sent, byte for byte, is answered by the daemon of now as it was then."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from volmgr.rpc.client import RPC_VERSION
from volmgr.testing.daemon import Daemon
from volmgr.testing.recorded import Replay

RECORDINGS = sorted((Path(__file__).parent / "recorded").glob("*.json"))


def misses(before: Any, now: Any, at: str = "") -> list[str]:
    """Return what an old client would look for in an answer and not find, or find as another kind of thing."""
    if before is None or now is None:
        return []
    if isinstance(before, bool) or isinstance(now, bool) or not isinstance(before, int | float):
        if type(before) is not type(now):
            return [f"{at}: {type(before).__name__} became {type(now).__name__}"]
    elif not isinstance(now, int | float):
        return [f"{at}: a number became {type(now).__name__}"]
    if isinstance(before, dict):
        lost = [f"{at}.{name} is missing" for name in before if name not in now]
        both = [name for name in before if name in now]
        return lost + [text for name in both for text in misses(before[name], now[name], f"{at}.{name}")]
    if isinstance(before, list):
        if bool(before) != bool(now):
            return [f"{at}: {len(before)} items became {len(now)}"]
        return misses(before[0], now[0], f"{at}[0]") if before else []
    return []


def test_the_version_of_now_is_recorded() -> None:
    assert f"{RPC_VERSION}.json" in {path.name for path in RECORDINGS}


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda path: path.stem)
def test_an_old_client_is_served(recording: Path, make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon().start()
    requests, lost = json.loads(recording.read_text()), list[str]()
    address = next(path for path in (daemon.state / "rpc").rglob("*") if path.is_socket())
    replay, count = Replay(str(address)), 0
    for item, answer in replay.play(requests):
        count += 1
        method = json.loads(item["sent"])["m"]["method"]
        if "error" in item:
            if json.loads(answer.get("f", "{}")).get("class") != item["error"]:
                lost.append(f"{method}: {item['error']} became {answer}")
        elif "r" not in answer:
            lost.append(f"{method} fails: {answer}")
        else:
            lost += misses(item.get("answer"), answer["r"], method)
    replay.close()
    assert lost == []
    assert count == len(requests) >= 40
