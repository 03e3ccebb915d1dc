# SPDX-License-Identifier: Apache-2.0
"""A pytest selection inside a real kernel: a User Mode Linux guest on the machine's own file system, changing nothing.

Device-mapper, LIO and the kernel's iSCSI initiator cannot be faked honestly, and many machines that build or review
volmgr have none of them. This package knows kernels, processes and pytest; it must not know volumes or drivers.
:mod:`.guest` runs on the machine, :mod:`.commands`, :mod:`.loopgroup`, :mod:`.lio` and :mod:`.initiator` in the guest.
"""
