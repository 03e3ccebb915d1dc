# SPDX-License-Identifier: Apache-2.0
"""volmgr-manage image: puts files into an image store and takes images out of it, without a daemon.

A file is inspected before it is put there as it will be before it is used, so that what nobody could use is refused
where a person sees it.
"""

from __future__ import annotations

import argparse
import dataclasses
import uuid
from typing import Any

from volmgr import exception
from volmgr.types import MiB

PIECE = 4 * MiB


def add_parsers(nouns: Any) -> None:
    """Add these commands to the grammar of volmgr-manage."""
    verbs = nouns.add_parser("image", help="images in a store").add_subparsers(
        dest="verb", required=True, metavar="import|delete"
    )
    put = verbs.add_parser("import", help="put a file into a store", description=__doc__)
    put.add_argument("id", metavar="[STORE/]ID", help="what it is to be called")
    put.add_argument("file", help="the file")
    put.add_argument("--format", default="raw", help="what it is: raw, qcow2, vmdk, vhdx or iso (default: raw)")
    put.add_argument("--name", metavar="TEXT", help="name for people")
    put.set_defaults(run=run_import)
    gone = verbs.add_parser("delete", help="remove an image; absent is success")
    gone.add_argument("id", metavar="[STORE/]ID")
    gone.set_defaults(run=run_delete)


def _images(conf: Any) -> Any:
    from volmgr.images.access import Images

    return Images.from_config(conf.images, conf.state_path)


def run_import(conf: Any, arguments: argparse.Namespace) -> int:
    """Put a file into a store; returns the exit status."""
    from volmgr.images import inspection
    from volmgr.images.base import ImageInfo

    images = _images(conf)
    store, image_id = images.stores.split(arguments.id)
    info = ImageInfo(image_id, store.name, arguments.format, str(uuid.uuid4()), name=arguments.name)
    try:
        file = open(arguments.file, "rb")  # noqa: SIM115 (closed below; other errors than its own are not the file's)
    except OSError as error:
        raise exception.Invalid(f"{arguments.file}: {error.strerror}", field="file") from error
    with file:
        found = inspection.inspect(file.fileno(), info, images.tools.qemu)
        upload = store.upload(dataclasses.replace(info, virtual_size=found.virtual_size))
        while data := file.read(PIECE):
            upload.write(data)
    print(upload.commit().full_id)
    return 0


def run_delete(conf: Any, arguments: argparse.Namespace) -> int:
    """Remove an image; returns the exit status."""
    store, image_id = _images(conf).stores.split(arguments.id)
    store.delete(image_id)
    return 0
