# SPDX-License-Identifier: Apache-2.0
"""One module for each revision, oldest first by number; a published one never changes."""
