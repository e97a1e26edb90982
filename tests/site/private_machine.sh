#!/bin/sh
# Runs a command on what looks like a machine of its own: no network, no libvirt state, no firewall.
# It is called inside new mount, network and process namespaces (see test_libvirtd.py).
set -eu
copy=$(mktemp -d)
cp -a /etc/libvirt/. "$copy"
for folder in /run/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt /etc/libvirt; do
  mkdir -p "$folder"
  mount -t tmpfs -o mode=755 private "$folder"
done
cp -a "$copy"/. /etc/libvirt
rm -r "$copy"
ip link set lo up
exec "$@"
