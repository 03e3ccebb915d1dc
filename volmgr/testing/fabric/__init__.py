# SPDX-License-Identifier: Apache-2.0
"""A pytest selection in an emulated machine with Debian's own kernel, for what User Mode Linux does not have.

That is Fibre Channel (two network adapters on a hub, FCoE) and RDMA (soft RoCE). The guest's root is this machine's,
read-only, under a layer that is discarded. It knows kernels, packages and pytest; it must not know volumes or drivers.
"""
