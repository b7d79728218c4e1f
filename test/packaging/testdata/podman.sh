#!/bin/sh
# podman.sh STORAGE - prepare namespaces in which podman can work, and keep them alive. The script
# must be their first process. It prints "ready", or the reason why this host does not allow such
# namespaces. crun needs cgroup2 without other cgroup mounts. podman keeps its locks in /dev/shm.
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
# podman cannot put an overlay over an overlay, and the host's root is an overlay if the host is
# itself a container.
[ "$(stat -f -c %T "$1")" != overlayfs ] || mount -t tmpfs -o mode=755 tmpfs "$1"
echo ready
# As the first process, the shell must reap the processes that containers leave.
while :; do
	sleep 3600 &
	wait
done
