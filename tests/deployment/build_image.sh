#!/bin/bash
# Build an image for real and try it, where there is neither a Docker daemon nor an image registry.
#
# Needs root, buildah, debootstrap and a Debian mirror. The base image is a fresh Debian with python3,
# tagged with the official image's name.
#
# usage: build_image.sh TARGET [OPTION OF buildah build]...       for example, with a mirror of the registry:
#        build_image.sh cpu --secret id=pip.conf,src=/etc/pip.conf
# SCRATCH names the storage (30 GB while it builds): a folder that stays, so that the next run is short.
set -euo pipefail

target=$1
shift
here=$(cd "$(dirname "$0")" && pwd)
scratch=${SCRATCH:-$(mktemp -d)}
base=docker.io/library/$(sed -n 's/^FROM \(.*\) AS base$/\1/p' "$here/../../Dockerfile")
image=localhost/pool5:$target
export BUILDAH_ISOLATION=chroot TMPDIR=$scratch
store() { buildah --root "$scratch/storage" --runroot "$scratch/run" "$@"; }
inspect() { store inspect --type image --format "$1" "$image"; }

finish() {
    store rm --all >/dev/null
    rm -rf "$scratch/data"
    [ -z "${SCRATCH:-}" ] || return 0
    umount "$scratch/storage/overlay" 2>/dev/null || true # buildah leaves its storage mounted on itself
    rm -rf "$scratch"
}

mkdir -p "$scratch"
trap finish EXIT

if ! store inspect --type image "$base" >/dev/null 2>&1; then
    debootstrap --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates \
        "${base##*-}" "$scratch/debian"
    container=$(store from scratch)
    store copy --quiet "$container" "$scratch/debian" / >/dev/null
    store commit --quiet --rm "$container" "$base"
    rm -rf "$scratch/debian"
fi

store build --pull=never --format docker --layers --target "$target" --tag "$image" "$@" "$here/../.."

root=$(store mount "$(store from --pull=never "$image")")
user=$(inspect '{{.Docker.Config.User}}')
install -d -o "${user%:*}" -g "${user#*:}" "$scratch/data" "$scratch/data/tmp"
inspect '{{range .Docker.Config.Env}}{{println .}}{{end}}' | sed '/^$/d' >"$scratch/environment"
echo "$image: $(du -smx "$root" | cut -f1) MB unpacked"
# As compose.yaml runs it: read-only root, image's user, no capability, no new privileges, and here no network.
unshare --mount --net --pid --fork --kill-child \
    "$here/as_compose.sh" "$root" "$scratch/data" "$user" "$scratch/environment" \
    /opt/pool5/bin/python -c "$(cat "$here/try_service.py")" "$(store inspect --type image "$image")"
