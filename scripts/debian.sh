# shellcheck shell=sh
# debian.sh - functions with which other scripts download packages of a Debian release.
#
# The release need not be the machine's own. The packages come from the mirror that the machine's
# apt uses. But the lists and the state of the machine's apt are not used. apt checks the signatures
# against Debian's keyring. Nothing is installed into the system.
#
# Environment:
#   TLSD_DEBIAN_MIRROR   URL of a mirror; default: the mirror of this machine's apt, or
#                        deb.debian.org if that is no mirror of Debian
#
# Each function runs in a subshell, so it changes no variable of the script.
#
# debian_apt, debian_without and debian_unpack need set -e to stop at an error. A shell ignores
# set -e in a condition, such as the command before ||. So do not call these three functions in a
# condition. Call them in a new shell process, and use the status of this process in the condition.

debian_keyring=/usr/share/keyrings/debian-archive-keyring.gpg
# The architecture of the packages, such as arm64. Empty: that of this machine.
debian_architecture=

# debian_lacks prints what this machine lacks of the TOOLs, and of what the functions here need.
debian_lacks() ( # TOOL...
	for tool in apt-get apt-config dpkg-deb flock "$@"; do
		command -v "$tool" >/dev/null || printf ' %s' "$tool"
	done
	[ -e "$debian_keyring" ] || printf ' %s' "$debian_keyring"
)

# debian_fresh is true if FILE is younger than DAYS days, and also younger than the scripts that
# made it: SCRIPT and debian.sh.
debian_fresh() ( # FILE DAYS SCRIPT
	[ -n "$(find "$1" -mtime "-$2" -newer "$3" -newer scripts/debian.sh 2>/dev/null)" ]
)

# debian_reason prints why a program, such as apt, has failed. The reason is a line of its LOG.
debian_reason() ( # LOG
	grep -m 1 '^E:' "$1" || tail -n 1 "$1" | grep . || echo "$1 does not say why"
)

# debian_mirror prints the URL of the mirror (see TLSD_DEBIAN_MIRROR).
debian_mirror() (
	if [ -n "${TLSD_DEBIAN_MIRROR:-}" ]; then
		echo "$TLSD_DEBIAN_MIRROR"
		exit
	fi
	# Only a source of Debian itself has a path that ends in /debian. The security archive and
	# other sources have another path.
	for f in /etc/apt/sources.list.d/*.sources /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
		[ -e "$f" ] || continue
		sed -n -e 's/^URIs:[[:space:]]*\([^[:space:]]*\).*/\1/p' \
			-e 's/^deb[[:space:]]\{1,\}\(\[[^]]*\][[:space:]]*\)\{0,1\}\([^[:space:]]*\).*/\2/p' "$f"
	done | grep -m 1 '/debian/*$' || echo http://deb.debian.org/debian
)

# debian_apt writes DIR/apt.conf, for APT_CONFIG. The machine's own configuration may have hooks and
# other sources, so only two things are taken from it: its proxies, and whether lists may be old.
debian_apt() ( # DIR SUITE...
	dir=$1
	shift
	mkdir -p "$dir/lists/partial" "$dir/archives/partial"
	for s in "$@"; do
		echo "deb [signed-by=$debian_keyring] $(debian_mirror) $s main"
	done >"$dir/sources.list"
	a=$debian_architecture
	: >"$dir/preferences"
	: >"$dir/status"
	debian_without "$dir" debconf # only the configuration of packages needs it
	{
		cat <<-END
			Dir::State "$dir";
			Dir::State::status "$dir/status";
			Dir::State::extended_states "$dir/extended_states";
			Dir::Cache "$dir";
			Dir::Cache::pkgcache "";
			Dir::Cache::srcpkgcache "";
			Dir::Etc::main "/dev/null";
			Dir::Etc::parts "/dev/null";
			Dir::Etc::sourcelist "$dir/sources.list";
			Dir::Etc::sourceparts "/dev/null";
			Dir::Etc::preferences "$dir/preferences";
			Dir::Etc::preferencesparts "/dev/null";
			Dir::Etc::trustedparts "/dev/null";
			Acquire::Languages "none";
			Acquire::GzipIndexes "true";
			Acquire::Retries "3";
			Acquire::http::Timeout "30";
			APT::Update::Error-Mode "any";
			APT::Install-Recommends "false";
			APT::Get::AllowUnauthenticated "false";
		END
		[ -z "$a" ] || echo "APT::Architecture \"$a\"; APT::Architectures { \"$a\"; };"
		# If root runs apt, apt would download as the user _apt, who cannot write to a
		# private folder. This setting makes apt download as root.
		[ "$(id -u)" != 0 ] || echo 'APT::Sandbox::User "root";'
		apt-config dump | grep -iE '^Acquire::(https?::Proxy|Check-Valid-Until|Check-Date)' || :
	} >"$dir/apt.conf"
)

# debian_without makes apt leave out these packages, even if others depend on them: apt takes them
# for installed.
debian_without() ( # DIR PACKAGE...
	dir=$1
	shift
	for p in "$@"; do
		cat <<-END
			Package: $p
			Status: install ok installed
			Version: 9:999
			Architecture: all
			Maintainer: nobody
			Description: left out

		END
	done >>"$dir/status"
)

# debian_unpack unpacks the packages that apt has downloaded into a new root, and removes the
# package files. The root also gets what programs look for: users, a name for loopback, folders for
# mounts, and certificate authorities if the package ca-certificates is in the root.
debian_unpack() ( # DIR ROOT
	# Debian's merged /usr: /bin is a link to usr/bin, and so on. In older releases no package
	# has these links, because the installer makes them.
	mkdir -p "$2/usr/bin" "$2/usr/sbin" "$2/usr/lib" "$2/usr/lib64"
	for d in bin sbin lib lib64; do
		ln -s "usr/$d" "$2/$d"
	done
	for deb in "$1"/archives/*.deb; do
		dpkg-deb --fsys-tarfile "$deb" | tar -C "$2" -x --keep-directory-symlink --no-same-owner \
			--exclude=./usr/share/doc --exclude=./usr/share/man \
			--exclude=./usr/share/locale --exclude=./usr/lib/*/gconv
	done
	rm -f "$1"/archives/*.deb
	[ -e "$2/bin/sh" ] || ln -s dash "$2/bin/sh"
	for d in proc sys dev tmp run src etc/ssl/certs var/lib; do
		mkdir -p "$2/$d"
	done
	echo '127.0.0.1 localhost' >"$2/etc/hosts"
	printf 'root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n' >"$2/etc/passwd"
	printf 'root:x:0:\nnogroup:x:65534:\n' >"$2/etc/group"
	# No package is configured here, so the next lines do the work of update-ca-certificates.
	authorities=$2/usr/share/ca-certificates/mozilla
	[ ! -d "$authorities" ] ||
		cat "$authorities"/*.crt >"$2/etc/ssl/certs/ca-certificates.crt"
)
