# SPDX-License-Identifier: Apache-2.0
"""The rules as oslo.policy's objects, for its tools: entry point ``oslo.policy.policies``."""

from __future__ import annotations

from oslo_policy import policy

from volmgr.policy import rules


def list_rules() -> list[policy.RuleDefault]:
    """Return every rule with its default, for ``oslopolicy-sample-generator --namespace volmgr``."""
    return [policy.RuleDefault(name, check, description=text) for name, check, text in rules.all_rules()]
