# SPDX-License-Identifier: Apache-2.0
"""The table of commands: each entry has a class, a parser and a line in the reference; nothing heavy is imported."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

from volmgr.cli import app
from volmgr.cli.commands import COMMANDS, Manager

ROOT = Path(__file__).resolve().parents[3]
HEAVY = ("oslo_messaging", "oslo_config", "sqlalchemy", "os_brick", "eventlet", "cmd2", "volmgr.rpc.client")


def run(*argv: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    try:
        code = app.VolmgrApp(stdout=out, stderr=err).run(list(argv))
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    return code, out.getvalue(), err.getvalue()


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help(name: str) -> None:
    code, out, err = run("help", *name.split())
    assert (code, err) == (0, "")
    assert out.startswith(f"usage: volmgr {name} ")
    said = re.sub(r"\s+", " ", out)
    assert COMMANDS[name].help[1:] in said


def test_the_option_asks_for_help_wherever_it_stands() -> None:
    wanted = run("help", "volume", "create")
    assert run("volume", "create", "--help") == wanted
    assert run("volume", "create", "-h", "--size", "1") == wanted
    assert "--snapshot" in wanted[1]


@pytest.mark.parametrize("argv", [[], ["--help"], ["help"]])
def test_help_lists_every_command(argv: list[str]) -> None:
    code, out, _err = run(*argv)
    assert code == 0
    for name, entry in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(entry.help)}$", out, re.MULTILINE), name


def test_the_reference_names_every_command() -> None:
    page = (ROOT / "doc" / "source" / "cli.rst").read_text(encoding="utf-8")
    missing = [name for name in COMMANDS if not re.search(rf"``volmgr {name}[` ]", page)]
    assert missing == []


def test_an_unknown_command_is_a_wrong_command_line() -> None:
    code, out, err = run("volume", "frobnicate")
    assert (code, out) == (2, "")
    assert "there is no command 'volume frobnicate'" in err
    assert "volume create" in err


def test_a_wrong_option_is_a_wrong_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    code, _out, _err = run("volume", "create", "--size", "0", "x")
    assert code == 2
    assert "at least 1" in capsys.readouterr().err


def test_names_of_volumes_are_not_taken_for_commands() -> None:
    """``attach li`` means the volume ``li``; as an abbreviation it would be ``attachment list``."""
    _cls, name, rest = Manager().find_command(["attach", "li"])
    assert (name, rest) == ("attach", ["li"])
    assert Manager().find_command(["volume", "show", "list", "--long"])[1:] == ("volume show", ["list", "--long"])


@pytest.mark.parametrize("argv", [["--help"], ["help", "volume", "create"], ["help", "attach"], ["complete"]])
def test_help_imports_nothing_heavy(argv: list[str]) -> None:
    script = (
        "import sys, contextlib\n"
        "from volmgr.cli import app\n"
        "with contextlib.suppress(SystemExit):\n"
        f"    app.main({argv!r})\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip().splitlines()[-1] == "[]"
    assert done.stdout
