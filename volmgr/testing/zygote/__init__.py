# SPDX-License-Identifier: Apache-2.0
"""Daemons that begin as copies of a process which has loaded everything already.

To load the daemon's modules takes most of a second of one processor, so a test that kills the daemon hundreds of times
spends its time on that. A zygote loads them once; each daemon is a fork of it with a session, environment, working
folder, output and arguments of its own, and runs the same ``main``. What differs from a start by exec(2) is the command
line in the process table, and whatever happens before ``main``: a few tests must start it in the ordinary way as well.
"""

from volmgr.testing.zygote.client import Life, Zygote, zygote_of

__all__ = ["Life", "Zygote", "zygote_of"]
