# SPDX-License-Identifier: Apache-2.0
"""How a capability is told from inheritance, and why a wrong composition cannot even be imported.

Every mixin descends from :class:`Interface`. A verb is the name of a method that a mixin introduces; :data:`VERBS`
says which mixin that is. This module knows no verb by itself and no driver.
"""

from __future__ import annotations

import abc
import inspect
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

_DEFAULT = "_volmgr_marked_default"
_NEEDS = "_volmgr_needs"

#: verb -> (the mixin that it belongs to, the name of the method).
VERBS: dict[str, tuple[type[Interface], str]] = {}


def marked_default(method: F) -> F:
    """Mark a body that does nothing: it raises Unsupported or returns the documented no-op value.

    A class whose method is marked does not support the verb.
    """
    setattr(method, _DEFAULT, True)
    return method


def general_solution(*needs: str) -> Callable[[F], F]:
    """Mark a body that works by means of other verbs: it is supported exactly where all of ``needs`` are."""

    def mark(method: F) -> F:
        setattr(method, _NEEDS, needs)
        return method

    return mark


class Interface(abc.ABC):  # noqa: B024 - the mixins have the abstract methods
    """Root of the mixins and so of every driver.

    Class keywords: ``interface=True`` declares a mixin, whose public methods become verbs; ``abstract=True`` declares
    an incomplete base class; ``partial=…`` declares a base class all of whose mixins are optional for its heirs, and
    names further mixins that its heirs need not inherit to have their methods.

    :cvar REQUIRES: mixins without which this mixin makes no sense.
    """

    REQUIRES: ClassVar[tuple[type[Interface], ...]] = ()
    _optional: ClassVar[frozenset[type[Interface]]] = frozenset()
    _granted: ClassVar[frozenset[type[Interface]]] = frozenset()
    _supported: ClassVar[frozenset[str]] = frozenset()
    _is_interface: ClassVar[bool] = True

    def __init_subclass__(
        cls,
        interface: bool = False,
        abstract: bool = False,
        partial: tuple[type[Interface], ...] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init_subclass__(**kwargs)
        cls._is_interface = interface
        if interface:
            for name, value in vars(cls).items():
                if inspect.isfunction(value) and not name.startswith("_"):
                    VERBS.setdefault(name, (cls, name))
            return
        if partial is not None:
            cls._granted = frozenset(partial)
            cls._optional = frozenset(_mixins(cls))
            abstract = True
        _check_membership(cls)
        _check_requirements(cls)
        if not abstract:
            _check_complete(cls)
        cls._supported = frozenset(verb for verb in VERBS if _provides(cls, verb))

    @classmethod
    def supports(cls, verb: str) -> bool:
        """Return whether drivers of this class can do ``verb``.

        :raises ValueError: no mixin has such a verb.
        """
        if verb not in VERBS:
            raise ValueError(f"{verb!r} is no verb of any driver")
        return verb in cls._supported


class ProxyVD:
    """Marks a driver object that passes everything on to another one, by ``__getattr__`` for example."""

    def _get_driver(self) -> Interface:
        """Return the driver behind the proxy."""
        raise NotImplementedError(f"{type(self).__name__} does not say which driver it stands for")

    def supports(self, verb: str) -> bool:
        """Return whether the driver behind the proxy can do ``verb``."""
        return self._get_driver().supports(verb)


def supports(driver: Interface | ProxyVD, verb: str) -> bool:
    """Return whether ``driver`` can do ``verb``; a proxy is asked for what stands behind it."""
    while isinstance(driver, ProxyVD):
        driver = driver._get_driver()
    return driver.supports(verb)


def _inherits(cls: type[Interface], mixin: type[Interface]) -> bool:
    # Not issubclass: the class is still being made, and an ABC would cache the answer for a half-made class.
    return mixin in cls.__mro__ or mixin in cls._granted


def _mixins(cls: type[Interface]) -> Iterator[type[Interface]]:
    for item in {mixin for mixin, _method in VERBS.values()}:
        if _inherits(cls, item):
            yield item


def _definer(cls: type, name: str) -> type | None:
    return next((item for item in cls.__mro__ if name in vars(item)), None)


def _check_membership(cls: type[Interface]) -> None:
    for verb, (mixin, method) in VERBS.items():
        definer = _definer(cls, method)
        if definer is None or _inherits(cls, mixin) or vars(definer).get("_is_interface"):
            continue
        raise TypeError(f"{cls.__qualname__} has {verb}, a method of {mixin.__name__}, and does not inherit it")


def _check_requirements(cls: type[Interface]) -> None:
    for mixin in _mixins(cls):
        for needed in mixin.REQUIRES:
            if not _inherits(cls, needed):
                raise TypeError(f"{cls.__qualname__} inherits {mixin.__name__}, which requires {needed.__name__}")


def _check_complete(cls: type[Interface]) -> None:
    lacking = []
    for verb, (mixin, method) in VERBS.items():
        if not _inherits(cls, mixin) or not getattr(vars(mixin)[method], "__isabstractmethod__", False):
            continue
        found = getattr(cls, method)
        if getattr(found, "__isabstractmethod__", False):
            lacking.append(f"{mixin.__name__}.{verb}")
        elif mixin not in cls._optional and getattr(found, _DEFAULT, False):
            # A base class to the left of the mixin hides its abstract method behind a body that does nothing.
            lacking.append(f"{mixin.__name__}.{verb}")
    if lacking:
        raise TypeError(f"{cls.__qualname__} lacks {', '.join(sorted(lacking))}; an incomplete base says abstract=True")


def _provides(cls: type[Interface], verb: str) -> bool:
    mixin, method = VERBS[verb]
    if not _inherits(cls, mixin):
        return False
    found = getattr(cls, method)
    if getattr(found, "__isabstractmethod__", False) or getattr(found, _DEFAULT, False):
        return False
    return all(_provides(cls, need) for need in getattr(found, _NEEDS, ()))
