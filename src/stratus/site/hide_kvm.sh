#!/bin/sh
# Runs a command with a /dev that has everything but kvm, and with another qemu.conf.
# It is called inside a private mount namespace (unshare --mount --propagation private), so nothing
# of this is seen outside, and it all vanishes with the last process that lives in it.
# usage: hide_kvm.sh EMPTY_DIRECTORY QEMU_CONF COMMAND [ARGUMENT...]
#
# A /dev/kvm that opens but does not work makes libvirt ask QEMU for its abilities again on every
# definition, for more than a minute each. A bind mount over the one node does not help: libvirt
# looks only at whether the name is accessible, so the name itself must be absent.
set -eu
new=$1
qemu_conf=$2
shift 2
mount -t tmpfs -o mode=755,nosuid stratus-dev "$new"
find /dev -mindepth 1 -maxdepth 1 \
  ! -name kvm ! -name pts ! -name shm ! -name mqueue ! -name hugepages \
  -exec cp -a -t "$new" {} +
for kept in pts shm mqueue hugepages; do
  if [ -d "/dev/$kept" ]; then
    mkdir -p "$new/$kept"
    mount --rbind "/dev/$kept" "$new/$kept"
  fi
done
mount --bind "$qemu_conf" /etc/libvirt/qemu.conf
mount --move "$new" /dev
exec "$@"
