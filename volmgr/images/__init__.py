# SPDX-License-Identifier: Apache-2.0
"""Images: the stores that keep them, and their way to and from volumes.

A store (:mod:`volmgr.images.base`) knows bytes and what is said of them. What an image's header really says is
:mod:`volmgr.images.inspection`; a driver is given a :mod:`volmgr.images.transfer`, which shows any image as a raw one.
Nothing here knows operations or SQL.
"""
