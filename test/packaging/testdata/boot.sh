#!/bin/sh
# boot.sh FOLDER LOWER ADD - make a root file system, and execute systemd in it. The script must be
# the first process of new namespaces. The root shows LOWER, and over it the files of ADD. What
# systemd writes goes into a tmpfs at FOLDER. If this host does not allow such a root, the exit
# status is 77.
set -eu
folder=$1 lower=$2 add=$3 new=$1/root

cannot() {
	echo "boot: $*" >&2
	exit 77
}

mount --make-rprivate / || cannot "mounts cannot be made private"
ip link set lo up
mount -t tmpfs -o mode=755 tmpfs "$folder" || cannot "no tmpfs can be mounted"
mkdir "$folder/upper" "$folder/work" "$new"
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$folder/upper,workdir=$folder/work" "$new" ||
	cannot "no overlay can be mounted over $lower"
cp -a "$add/." "$new/"
for user in alice:5001 bob:5002; do
	name=${user%:*} id=${user#*:}
	echo "$name:x:$id:$id::/home/$name:/bin/sh" >>"$new/etc/passwd"
	echo "$name:x:$id:" >>"$new/etc/group"
	echo "$name:*:19000:0:99999:7:::" >>"$new/etc/shadow"
	mkdir -p "$new/home/$name"
	chown "$id:$id" "$new/home/$name"
done

# systemd must start only the test's target, the journal and tlsd's units, and none of the host's
# services.
units=$new/etc/systemd/system
printf '[Unit]\nDescription=Test\nRequires=basic.target\nAfter=basic.target\nAllowIsolate=yes\n' >"$units/tlsd-test.target"
for unit in "$new"/usr/lib/systemd/system/sysinit.target.wants/* "$units"/*.wants/*; do
	[ -L "$unit" ] || continue
	case ${unit##*/} in
	systemd-journald* | systemd-tmpfiles-setup.service | tlsd*) ;;
	*) ln -sf /dev/null "$units/${unit##*/}" ;;
	esac
done

mount -t proc proc "$new/proc" || cannot "no proc can be mounted"
mount --rbind /sys "$new/sys"
umount -R -l "$new/sys/fs/cgroup"
mount -t cgroup2 cgroup2 "$new/sys/fs/cgroup" || cannot "no cgroup2 can be mounted"
mount -t tmpfs -o mode=755 tmpfs "$new/run"
mount -t tmpfs -o mode=1777 tmpfs "$new/tmp"
mount -t tmpfs -o mode=755 tmpfs "$new/dev"
mkdir "$new/dev/pts" "$new/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$new/dev/pts"
ln -s pts/ptmx "$new/dev/ptmx"
for node in null zero full random urandom tty; do
	: >"$new/dev/$node"
	mount --bind "/dev/$node" "$new/dev/$node"
done
: >"$new/dev/console"
mount --bind /dev/null "$new/dev/console"
mkdir -p "$new/old-root"
cd "$new"
pivot_root . old-root
umount -l /old-root
exec env -i container=tlsd-test PATH=/usr/sbin:/usr/bin:/sbin:/bin /usr/lib/systemd/systemd \
	--system --log-target=journal --show-status=no --unit=tlsd-test.target </dev/null
