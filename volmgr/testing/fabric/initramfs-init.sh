#!/bin/busybox sh
# SPDX-License-Identifier: Apache-2.0
# The first program of the emulated guest: reaches the machine's files, puts a discarded layer over them, goes on there.
B=/bin/busybox
$B mount -t proc proc /proc; $B mount -t sysfs sys /sys; $B mount -t devtmpfs dev /dev
while read -r module; do $B insmod "/modules/$module" || echo "volmgr-fabric: cannot load $module"; done < /modules/order

word() { $B sed -n "s/.*volmgr\.$1=\([^ ]*\).*/\1/p" /proc/cmdline; }
options=trans=virtio,version=9p2000.L,msize=262144
$B mount -t 9p -o "ro,cache=loose,$options" root /ro || { echo "volmgr-fabric: no root"; exec $B poweroff -f; }
$B mount -t tmpfs -o size=75% layer /rw
$B mkdir /rw/upper /rw/work
$B mount -t overlay -o lowerdir=/ro,upperdir=/rw/upper,workdir=/rw/work,xino=off discarded /new
release=$($B uname -r)
$B mkdir -p "/new/usr/lib/modules/$release" /new/proc /new/sys /new/dev /new/run
$B mount --bind "/ro$(word modules)" "/new/usr/lib/modules/$release"
for folder in proc sys dev; do $B mount --move "/$folder" "/new/$folder"; done
$B mount -t tmpfs run /new/run
$B mkdir -p /new/run/volmgr-lab/results /new/run/volmgr-lab/tmp
# Through to the machine at once: a cached file would be empty there when the power goes off.
$B mount -t 9p -o "cache=none,$options" results /new/run/volmgr-lab/results
exec $B switch_root /new /bin/bash /run/volmgr-lab/results/init.sh
