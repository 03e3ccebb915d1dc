# SPDX-License-Identifier: Apache-2.0
"""Helpers for tests that are part of the product: drivers and deployments of others may use them."""
