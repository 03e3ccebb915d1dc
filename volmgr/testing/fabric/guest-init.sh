# SPDX-License-Identifier: Apache-2.0
# The second program of the emulated guest: modules, LIO, names of the adapters, daemons, the tests, and off.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
results=/run/volmgr-lab/results

power_off() {
    sync
    dmesg > "$results/dmesg"
    echo o > /proc/sysrq-trigger
    # The first process must not end before the power does.
    while :; do :; done
}

fail() {
    echo "volmgr-fabric: start-up failed: $*"
    echo "$*" > "$results/boot-error"
    power_off
}

mkdir -p /dev/pts /dev/shm /etc/lvm /etc/target /etc/rtslib-fb-target /run/lock/iscsi /run/lock/lvm
mount -t devpts devpts /dev/pts && mount -t tmpfs shm /dev/shm && mount -t tmpfs tmp /run/volmgr-lab/tmp || fail "mount"
ip link set lo up || fail "bring lo up"
modprobe -a configfs dm-mod dm-thin-pool loop target_core_mod target_core_iblock target_core_file || fail "load the modules"
mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config || fail "mount configfs"
modprobe -a sd_mod sg e1000 veth || fail "load the modules of adapters"
# Whoever reads a network's disks that are gone waits for minutes.
echo 'devices { global_filter = [ "r|^/dev/etherd/|" ] }' > /etc/lvm/lvmlocal.conf
/lib/systemd/systemd-udevd --daemon && udevadm trigger -s block -s net -s scsi -s pci && udevadm settle || fail "start udev"
for interface in /sys/class/net/*; do
    address=$(cat "$interface/address")
    case $address in
        52:54:00:aa:00:0*) ip link set "${interface##*/}" name "fc${address##*:0}" ;;
    esac
done
for interface in fc0 fc1 fc2; do
    # A Fibre Channel frame is longer than an Ethernet frame usually is.
    sysctl -qw "net.ipv6.conf.$interface.disable_ipv6=1"; ip link set "$interface" mtu 2500 up || fail "bring $interface up"
done
mkdir -p /etc/iscsi && rm -rf /etc/iscsi/nodes /etc/iscsi/send_targets /etc/iscsi/ifaces
echo "InitiatorName=iqn.2010-10.org.volmgr:fabric" > /etc/iscsi/initiatorname.iscsi
printf '%s\n' 'node.startup = manual' 'node.leading_login = No' > /etc/iscsi/iscsid.conf
echo "volmgr-fabric: ready"
cut -d' ' -f1 /proc/uptime > "$results/ready"
stty -F /dev/ttyS1 -opost -echo
bash "$results/command.sh" </dev/null >/dev/ttyS1 2>&1
echo $? > "$results/status"
power_off
