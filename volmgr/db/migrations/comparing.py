# SPDX-License-Identifier: Apache-2.0
"""Compares a column's default in the database with the model's, for alembic's comparison of models and schema.

Databases write a default in their own way: quoted, cast, in brackets, booleans as numbers. Alembic's own comparison
takes an empty text, and MariaDB's numbers, for differences.
"""

from __future__ import annotations

import re
from typing import Any

_CAST = re.compile(r"::[a-z ]+\Z")


def default_differs(
    _context: Any, _column: Any, _model: Any, inspected: str | None, _default: Any, rendered: str | None
) -> bool:
    """Return whether two defaults differ; the signature is alembic's ``compare_server_default``."""
    return _plain(inspected) != _plain(rendered)


def _plain(default: str | None) -> str | None:
    if default is None:
        return None
    text = _CAST.sub("", default.strip()).strip("()").strip("'")
    return {"false": "0", "true": "1"}.get(text.lower(), text)
