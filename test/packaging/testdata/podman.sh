#!/bin/sh
# podman.sh STORAGE - as the first process of new namespaces, make a place where podman works, and
# keep it. crun needs cgroup2 alone. podman's locks are in /dev/shm. The output is "ready", or the
# reason why this machine does not allow such a place.
set -eu

cannot() {
	echo "$*"
	exit 1
}

mount --make-rprivate / || cannot "mounts cannot be made private"
mount -t proc proc /proc || cannot "no proc can be mounted"
umount -R -l /sys/fs/cgroup || cannot "the cgroups cannot be unmounted"
mount -t cgroup2 cgroup2 /sys/fs/cgroup || cannot "no cgroup2 can be mounted"
mount -t tmpfs -o mode=1777 tmpfs /dev/shm || cannot "no tmpfs can be mounted"
# podman puts no overlay over another, such as the root of a machine that is itself a container.
[ "$(stat -f -c %T "$1")" != overlayfs ] || mount -t tmpfs -o mode=755 tmpfs "$1"
echo ready
# The shell reaps what containers leave.
while :; do
	sleep 3600 &
	wait
done
