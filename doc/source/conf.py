# SPDX-License-Identifier: Apache-2.0
"""Sphinx's settings: a theme that comes with it and no access to a network; it knows nothing of the pages."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "ext"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import volmgr

project = "volmgr"
copyright = "the volmgr authors"
version = release = volmgr.__version__
extensions: list[str] = ["commandline"]
exclude_patterns: list[str] = []
html_theme = "alabaster"
html_theme_options = {"description": "A block volume manager", "fixed_sidebar": True, "page_width": "64em"}
html_show_copyright = False
# Man pages are kept in doc/man, so nothing in them may change by itself.
today = "2026"
man_pages = [
    (f"man/{name}", name, text, "", section)
    for name, text, section in (
        ("volmgr", "volumes for compute services, from the command line", 1),
        ("volmgr-volume", "the volume manager daemon", 8),
        ("volmgr-manage", "administration of volmgr on its own host", 8),
        ("volmgr-status", "whether volmgr can be upgraded", 8),
    )
]
man_make_section_directory = False
