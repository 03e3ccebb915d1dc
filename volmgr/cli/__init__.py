# SPDX-License-Identifier: Apache-2.0
"""The operator's command line, ``volmgr``; it talks to the daemon as every other client does and knows no database."""
