# SPDX-License-Identifier: Apache-2.0
"""Storage backends. A driver knows its options and its storage; no manager, service or database."""
