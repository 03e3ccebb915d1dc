# SPDX-License-Identifier: Apache-2.0
"""Typed wrappers of programs and their protocols: they parse what a tool says and know nothing of volumes."""
