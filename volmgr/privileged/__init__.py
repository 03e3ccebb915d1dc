# SPDX-License-Identifier: Apache-2.0
"""Small named functions that need root: each makes its own command line, none runs what it is told."""
