# SPDX-License-Identifier: Apache-2.0
"""The verbs: one module per family, one class per changing verb."""
