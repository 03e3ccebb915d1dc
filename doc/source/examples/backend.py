"""Uses a configured backend without the service: python backend.py /etc/volmgr/volmgr.conf"""
import sys

from volmgr import conf, local

with local.opened(conf.load(["--config-file", sys.argv[1]])) as backend:
    volume = backend.create(size=1)
    snapshot = backend.snapshot(volume.id)
    copy = backend.clone(snapshot.id, size=2)
    print(backend.driver.local_path(copy), backend.pools()[0]["free_capacity_gb"])
    for made in (copy, snapshot, volume):
        backend.delete(made.id)
