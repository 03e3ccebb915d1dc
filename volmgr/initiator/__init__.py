# SPDX-License-Identifier: Apache-2.0
"""Initiators of protocols for which os-brick has none, with the methods of its connectors."""
