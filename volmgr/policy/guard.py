# SPDX-License-Identifier: Apache-2.0
"""Judges each request by the rules, once, before anything is read or changed for it.

oslo.policy is imported when it is needed: by the first request of somebody who is no administrator, or at the start if
there is a policy file. Files are read again when they have changed; one that cannot be understood then leaves in force
what was in force before.
"""

from __future__ import annotations

import functools
import logging
import os
from typing import TYPE_CHECKING, Any

from volmgr import exception
from volmgr.context import RequestContext
from volmgr.policy import rules

if TYPE_CHECKING:
    from oslo_config import cfg
    from oslo_policy.policy import Enforcer

LOG = logging.getLogger(__name__)

#: where the files are without a configuration file.
HOME = "/etc/volmgr"
#: how many answers are remembered.
REMEMBERED = 4096

#: what a policy file was when it was read: path, inode, change time in ns, size.
Print = tuple[tuple[str, int, int, int], ...]


class Book:
    """The rules that are in force.

    :param enforcer: judges by them. :param remote: whether one of them asks a server, whose answer may change.
    """

    def __init__(self, enforcer: Enforcer, *, remote: bool) -> None:
        self._enforcer = enforcer
        # The library looks at the signature of each part of a rule again and again: half a millisecond for a request.
        self.allows = self._ask if remote else functools.lru_cache(REMEMBERED)(self._ask)

    def _ask(
        self, rule: str, user_id: str | None, project_id: str | None, roles: tuple[str, ...], is_admin: bool
    ) -> bool:
        """Return whether a caller fulfils a rule."""
        who = {"user_id": user_id, "project_id": project_id, "roles": list(roles), "is_admin": is_admin}
        return bool(self._enforcer.enforce(rule, {"project_id": project_id}, who))


class Guard:
    """The rules of a deployment.

    :param conf: its configuration, with ``[oslo_policy]`` and ``default_roles``.
    :raises InvalidConfiguration: a policy file cannot be read or understood.
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf
        self._default_roles = list(conf.default_roles)
        self._file, *self._folders = (
            self._place(name) for name in (conf.oslo_policy.policy_file, *conf.oslo_policy.policy_dirs)
        )
        self._read: Print = ()
        self._book: Book | None = None
        if found := self._prints():
            self._book, self._read = self._load(found), found

    def authorise(self, context: RequestContext, verb: str, arguments: dict[str, Any]) -> RequestContext:
        """Return the context that a request goes on with: whether it is an administrator's is decided here.

        :param arguments: of the request; they need not be checked yet.
        :raises Forbidden: a rule is not fulfilled; the hint names it.
        """
        book = self._current()
        if book is None and context.is_admin:
            return context  # what every default allows; a test keeps them so
        book = book or self._defaults()
        who = (context.user_id, context.project_id, tuple(context.roles or self._default_roles))
        is_admin = book.allows(rules.ADMIN, *who, bool(context.is_admin))
        for rule in rules.needed(verb, arguments):
            if not book.allows(rule, *who, is_admin):
                raise exception.Forbidden(
                    f"{verb} is not allowed to you",
                    hint=f"The policy rule {rule} does not allow it to the roles "
                    f"{', '.join(who[2]) or '(none)'}: ask an administrator",
                    rule=rule,
                )
        if is_admin == bool(context.is_admin):
            return context
        return RequestContext.from_dict({**context.to_dict(), "is_admin": is_admin, "_peer": context.peer})

    # --- files ----------------------------------------------------------------------------------------------------

    def _current(self) -> Book | None:
        """Return the rules that hold now, None for the defaults as long as nobody had to be judged by them."""
        if (found := self._prints()) == self._read:
            return self._book
        self._read = found
        try:
            self._book = self._load(found)
        except exception.InvalidConfiguration as error:
            LOG.error("The rules stay what they were: %s", error)
        else:
            LOG.info("The policy was read: %s", ", ".join(item[0] for item in found) or "no file")
        return self._book

    def _defaults(self) -> Book:
        if self._book is None:
            self._book = self._load(())
        return self._book

    def _place(self, name: str) -> str:
        """Return where a file or folder of rules is, or would be looked for: beside the first configuration file."""
        if (found := self._conf.find_file(name)) is not None:
            return found
        beside = os.path.dirname(os.path.abspath(self._conf.config_file[0])) if self._conf.config_file else HOME
        return os.path.join(beside, name)

    def _prints(self) -> Print:
        """Return the policy files as they are now; a file that goes meanwhile is none."""
        paths, prints = [self._file], []
        for folder in self._folders:
            try:
                paths += sorted(os.path.join(folder, name) for name in os.listdir(folder) if not name.startswith("."))
            except FileNotFoundError:
                continue
        for path in paths:
            try:
                seen = os.stat(path)
            except FileNotFoundError:
                continue
            prints.append((path, seen.st_ino, seen.st_mtime_ns, seen.st_size))
        return tuple(prints)

    def _load(self, found: Print) -> Book:
        """Return the defaults with what the files say instead.

        :raises InvalidConfiguration: a file cannot be read or understood.
        """
        from oslo_policy import policy

        texts = {name: check for name, check, _about in rules.all_rules()}
        known = frozenset(texts)
        for path, *_rest in found:
            texts |= _rules_of(path, known)
        enforcer = policy.Enforcer(self._conf, rules={}, use_conf=False)
        enforcer.set_rules(policy.Rules.from_dict(texts), use_conf=False)
        try:
            enforcer.check_rules(raise_on_violation=True)
        except policy.InvalidDefinitionError as error:
            raise _broken(found[-1][0], str(error)) from error
        remote = any(kind in check for check in texts.values() for kind in ("http:", "https:"))
        return Book(enforcer, remote=remote)


def _rules_of(path: str, known: frozenset[str]) -> dict[str, str]:
    """Return what one policy file says, by rule.

    :param known: the rules that there are; a file may have rules of other names to build on.
    """
    from oslo_policy import _checks, _parser, policy

    try:
        with open(path, encoding="utf-8") as file:
            said = policy.parse_file_contents(file.read())
    except (OSError, ValueError, RecursionError) as error:
        raise _broken(path, str(error)) from error
    if not isinstance(said, dict):
        raise _broken(path, "it is no mapping of rules")
    for name, check in said.items():
        if not isinstance(name, str) or not isinstance(check, str):
            raise _broken(path, f"the rule {name!r} is no text")
        if name.startswith(rules.PREFIX) and name not in known:
            raise _broken(path, f"there is no rule {name}")
        # The library takes what it cannot parse for "nobody"; a slip of the pen must not shut everybody out.
        if check.strip() != "!" and isinstance(_parser.parse_rule(check), _checks.FalseCheck):
            raise _broken(path, f"the rule {name} cannot be understood: {check!r}")
    return said


def _broken(path: str, reason: str) -> exception.InvalidConfiguration:
    return exception.InvalidConfiguration(
        reason=f"the policy file {path}: {reason}",
        hint="Compare it with: oslopolicy-sample-generator --namespace volmgr",
    )
