# SPDX-License-Identifier: Apache-2.0
"""Sphinx's settings: a theme that comes with it and no access to a network; it knows nothing of the pages."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import volmgr

project = "volmgr"
copyright = "the volmgr authors"
version = release = volmgr.__version__
extensions: list[str] = []
exclude_patterns: list[str] = []
html_theme = "alabaster"
html_theme_options = {"description": "A block volume manager", "fixed_sidebar": True, "page_width": "64em"}
html_show_copyright = False
