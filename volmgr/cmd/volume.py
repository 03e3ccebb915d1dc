# SPDX-License-Identifier: Apache-2.0
"""volmgr-volume: the daemon. With no config file it serves its embedded defaults."""

from __future__ import annotations

import gc
import sys

from volmgr import concurrency


def main(argv: list[str] | None = None) -> int:
    """Run the daemon until SIGTERM or SIGINT; returns the exit status: 0 drained, 1 could not start, 2 bad usage."""
    arguments = sys.argv[1:] if argv is None else argv
    gc.disable()  # until all is loaded: what is loaded stays
    from volmgr.cmd import supervisor

    if len(supervisor.named(arguments)) > 1:
        concurrency.setup("threading")
        return supervisor.run(arguments)
    try:
        concurrency.setup(concurrency.choose(concurrency.config_files_of(arguments)))
    except ValueError as error:
        print(f"volmgr-volume: {error}", file=sys.stderr)
        return 2
    # Everything else is imported after the choice of green or native threads.
    from volmgr.cmd.daemon import run

    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
