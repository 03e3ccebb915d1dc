# SPDX-License-Identifier: Apache-2.0
# The first process of a lab guest: puts a discarded layer over the whole file system, loads what the tests need, runs them, halts.
# VOLMGR_LAB_RESULTS (from the kernel's command line) is the one folder that is written through to the machine.

export PATH=/usr/sbin:/usr/bin:/sbin:/bin
results=/run/volmgr-lab/results

halt_guest() {
    sync -f "$results"
    echo o > /proc/sysrq-trigger
    # The power goes off from a kernel worker; the first process must not end before.
    while :; do sleep 60; done
}

fail() {
    echo "volmgr-lab: start-up failed: $*"
    [ -d "$results" ] && echo "$*" > "$results/boot-error"
    halt_guest
}

enter_discarded_layer() {
    mount -t proc proc /proc || fail "mount /proc"
    modules=/usr/lib/uml/modules/$(uname -r)
    insmod "$modules/kernel/fs/overlayfs/overlay.ko" || fail "load overlay"
    mount -t tmpfs layer /mnt && mkdir /mnt/upper /mnt/work /mnt/root || fail "mount the layer"
    mount -t overlay discarded -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root || fail "mount the overlay"
    umount /proc
    cd /mnt/root && pivot_root . mnt && cd / || fail "enter the overlay"
    mount -t proc proc /proc && mount -t sysfs sysfs /sys && mount -t devtmpfs dev /dev || fail "mount /proc, /sys, /dev"
    # The machine's root is not reachable any more, except as the overlay's lower, read-only layer.
    umount -l /mnt || fail "leave the machine's root"
}

mount_private_folders() {
    mkdir -p /dev/pts /dev/shm
    mount -t devpts devpts /dev/pts && mount -t tmpfs shm /dev/shm && mount -t tmpfs run /run || fail "mount /run"
    mkdir -p "$results" /run/volmgr-lab/tmp /run/lock/iscsi /run/lock/lvm
    mount -t hostfs results "$results" -o "$VOLMGR_LAB_RESULTS" || fail "mount the results folder"
    mount -t tmpfs tmp /run/volmgr-lab/tmp || fail "mount the temporary folder"
}

load_modules() {
    mkdir -p /lib/modules /etc/target
    ln -sfn "$modules" "/lib/modules/$(uname -r)"
    # target_core_mod looks for /etc/target when it is loaded, hence the folder above.
    modprobe -a dm-mod dm-thin-pool dm-snapshot dm-mirror dm-raid raid1 dm-multipath loop configfs sd_mod \
        iscsi_tcp target_core_mod target_core_iblock target_core_file iscsi_target_mod || fail "load the modules"
    # Its disks are made by whoever needs one; LVM has to be told what they are.
    modprobe zram num_devices=0 || fail "load zram"
    echo 'devices { types = [ "zram", 16 ] }' >> /etc/lvm/lvmlocal.conf
    # Nothing that LVM runs from lies on a device that it suspends, so it need not lock itself into memory, page by page:
    # each page is a fault, and those are what a guest is slow in.
    echo 'activation { reserved_memory = 0 reserved_stack = 0 mlock_filter = [ "/", "[", "-p " ] }' >> /etc/lvm/lvmlocal.conf
    mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config || fail "mount configfs"
}

start_daemons() {
    ip link set lo up || fail "bring lo up"
    # Without udev LVM finds no nodes for its volumes and /dev/disk/by-path stays empty.
    # Only block devices matter: to announce each device of the guest again would take most of its start.
    /lib/systemd/systemd-udevd --daemon && udevadm trigger --subsystem-match=block && udevadm settle || fail "start udev"
    mkdir -p /etc/iscsi
    rm -rf /etc/iscsi/nodes /etc/iscsi/send_targets
    echo "InitiatorName=iqn.2010-10.org.volmgr:$VOLMGR_LAB_GUEST" > /etc/iscsi/initiatorname.iscsi
    printf '%s\n' 'node.startup = manual' 'node.leading_login = No' > /etc/iscsi/iscsid.conf
    iscsid || fail "start iscsid"
}

enter_discarded_layer
mount_private_folders
load_modules
start_daemons
echo "volmgr-lab: ready"
cut -d' ' -f1 /proc/uptime > "$results/ready"
# The test's output has a terminal of its own, so that the kernel's messages do not mix with it.
stty -F /dev/tty1 -opost -echo
bash "$results/command.sh" </dev/null >/dev/tty1 2>&1
echo $? > "$results/status"
halt_guest
