#!/bin/bash
# Run a command in an unpacked image as compose.yaml would run it. Expects namespaces of its own
# (unshare --mount --net --pid --fork).
#
# usage: as_compose.sh ROOT DATA UID:GID ENVIRONMENT-FILE COMMAND...
set -euo pipefail

root=$1 data=$2 user=$3 environment=$4
shift 4
mount --make-rprivate /
mount --bind "$root" "$root"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/tmp"
mount --bind "$data" "$root/data"
mount -o remount,bind,ro "$root"
ip link set lo up

mapfile -t variables <"$environment"
exec env --ignore-environment "${variables[@]}" PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    chroot "$root" setpriv --reuid "${user%:*}" --regid "${user#*:}" --clear-groups \
    --no-new-privs --bounding-set=-all --inh-caps=-all \
    env "PATH=$(sed -n 's/^PATH=//p' "$environment")" "$@"
