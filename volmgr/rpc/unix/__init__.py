# SPDX-License-Identifier: Apache-2.0
"""The ``unix://`` transport: RPC between the processes of one host, without a broker.

Every server listens on a stream socket of its own in one directory. A frame is four bytes of length (big endian) and
that many bytes of JSON, always an object. Both ends know these frames:

====================== ==============================================================================================
direction              object
====================== ==============================================================================================
client, first          ``{"magic", "version", "max_frame"}``
server, first          the same, with ``"error"`` and ``"message"`` when it refuses; then it closes the connection
client, a request      ``{"i": id, "k": "call"|"cast"|"fan", "c": context, "m": message, "t": heartbeat time or null}``
server, the answer     ``{"i": id, "r": result}``, ``{"i": id, "a": 1}`` (a cast is acknowledged),
                       ``{"i": id, "f": remote exception}``, ``{"i": id, "e": why it was refused, "x": explanation}``
server, in between     ``{"i": id, "h": 1}``: a long call is still running
====================== ==============================================================================================

Ids are the client's, one connection carries many requests at once, answers come in any order, a ``fan`` has none.
Nothing in this package knows of volumes, SQL or drivers.
"""
