# SPDX-License-Identifier: Apache-2.0
"""How requests reach a VolumeManager and answers come back; what a request means is decided elsewhere."""
