# SPDX-License-Identifier: Apache-2.0
"""Who may ask for what: one rule for each verb, as data, and the one place where they are judged.

:mod:`volmgr.policy.rules` has the rules, :mod:`volmgr.policy.guard` judges, :mod:`volmgr.policy.defaults` is what the
generator of the sample file asks for.
"""
