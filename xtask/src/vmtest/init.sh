#!/bin/sh
# The first process of a virtual machine: what the tests expect of a machine, then the tests. They print to the
# second serial port; the kernel to the first.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/
mkdir -p /proc /sys /dev /tmp /run /etc /var
ln -s /run /var/run
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts
mount -t devpts devpts /dev/pts
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup /sys/fs/cgroup
ln -s /proc/self/fd /dev/fd
# Its device is what has the kernel load it elsewhere; udev has made that there.
modprobe tun
ip link set lo up
stty -F /dev/ttyS1 -opost 2>/dev/null
sh /tests/run >/dev/ttyS1 2>&1
sync
poweroff -f
