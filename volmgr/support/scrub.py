# SPDX-License-Identifier: Apache-2.0
"""Takes secrets out of texts: by their values, where those are known, and by what secrets look like, where not.

Pure: it reads no file and asks nobody.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

MASK = "***"
#: A shorter value is no secret worth the name, and would tear texts apart.
SHORTEST = 3
_NAMES = (
    r"[a-z0-9_.-]*(?:passw(?:or)?d|passwd|passphrase|secret|token|private[_-]?key|secret[_-]?key|access[_-]?key"
    r"|api[_-]?key|auth[_-]?key|credentials?)[a-z0-9_-]*"
)
_NAMED = rf"""(?i)(["']?\b{_NAMES}["']?\s*[:=]\s*)"""
_QUOTED = r"""(?:b?"(?:[^"\\]|\\.)*"|b?'(?:[^'\\]|\\.)*')"""
_BARE = r"""(?!["'])(?:(?:bearer|basic)\s+)?[^\s,;&"'}\])]+"""
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), MASK),
    # user:password@ in any URL; the user stays.
    (re.compile(r"""(?<=//)([^/\s:@]*):[^/\s"']*@"""), rf"\1:{MASK}@"),
    # "name": "value", name='value', name=value, name: value
    (re.compile(_NAMED + _QUOTED), rf'\1"{MASK}"'),
    (re.compile(_NAMED + _BARE), rf"\1{MASK}"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), rf"\1 {MASK}"),
    # provider_auth, and the words of target and initiator tools.
    (re.compile(r"""\b(CHAP\s+\S+\s+)[^\s"',;)]+"""), rf"\1{MASK}"),
)
_TOKEN = re.compile(r"[A-Za-z0-9+/=_-]{8,}")


class Scrubber:
    """Knows some secrets, and what the others look like.

    :param values: secrets that are few and may have any form, as a configuration has them.
    :param tokens: secrets that may be many and consist of letters, digits and ``+/=_-``, at least eight of them.
    """

    def __init__(self, values: Iterable[str] = (), tokens: Iterable[str] = ()) -> None:
        known = {form for value in values for form in _forms(value) if len(form) >= SHORTEST}
        # The longest first: one may be part of another.
        ordered = sorted(known, key=lambda text: (-len(text), text))
        self._values = re.compile("|".join(map(re.escape, ordered))) if ordered else None
        self._tokens = frozenset(tokens)

    def scrub(self, text: str) -> str:
        """Return a text without the secrets that are known or recognised."""
        if self._values is not None:
            text = self._values.sub(MASK, text)
        if self._tokens:
            text = _TOKEN.sub(lambda match: MASK if match[0] in self._tokens else match[0], text)
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
        return text


def _forms(value: str) -> Iterator[str]:
    """Yield a secret as it is and as URLs have it."""
    yield value
    yield urllib.parse.quote(value, safe="")
    yield urllib.parse.quote_plus(value)


def parts_of(value: Any) -> Iterator[str]:
    """Yield the secret texts in the value of a secret option: itself, its items, and the passwords of its URLs."""
    if isinstance(value, Mapping):
        for item in value.values():
            yield from parts_of(item)
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from parts_of(item)
    elif value not in (None, "", True, False):
        text = str(value)
        found = [password for url in re.findall(r"//[^/\s]*", text) for password in _passwords(url)]
        if "//" in text:
            yield from found
        else:
            yield text


def _passwords(netlocs: str) -> Iterator[str]:
    for netloc in netlocs.removeprefix("//").split(","):
        user_info, at, _host = netloc.rpartition("@")
        _user, colon, password = user_info.partition(":")
        if at and colon and password:
            yield password
            yield urllib.parse.unquote(password)
