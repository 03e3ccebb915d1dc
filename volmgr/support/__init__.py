# SPDX-License-Identifier: Apache-2.0
"""What goes to somebody who helps: support bundles and reports of a running daemon, without a secret in them."""
