# shellcheck shell=sh
# debian.sh - for other scripts, which source it: packages of a Debian release, whatever this machine
# runs. They come from the mirror that this machine's apt uses, with lists and state of their own. apt
# checks the signatures against Debian's keyring, and nothing is installed into the system.
#
# TLSD_DEBIAN_MIRROR is the URL of a mirror; default: the first of apt's sources, else deb.debian.org.
#
# The functions are subshells, so that they change no variable of the script.

debian_keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# debian_mirror prints the URL of the mirror that apt uses.
debian_mirror() (
	if [ -n "${TLSD_DEBIAN_MIRROR:-}" ]; then
		echo "$TLSD_DEBIAN_MIRROR"
		exit
	fi
	# A source of Debian itself: of the security archive and of others the path differs.
	for f in /etc/apt/sources.list.d/*.sources /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
		[ -e "$f" ] || continue
		sed -n -e 's/^URIs:[[:space:]]*\([^[:space:]]*\).*/\1/p' \
			-e 's/^deb[[:space:]]\{1,\}\(\[[^]]*\][[:space:]]*\)\{0,1\}\([^[:space:]]*\).*/\2/p' "$f"
	done | grep -m 1 '/debian/*$' || echo http://deb.debian.org/debian
)

# debian_apt writes DIR/apt.conf, for APT_CONFIG. The machine's own is left out, for it may have hooks
# and other sources, except for its proxies and for what it thinks of a mirror that stands still.
debian_apt() ( # DIR SUITE...
	dir=$1
	shift
	mkdir -p "$dir/lists/partial" "$dir/archives/partial"
	for s in "$@"; do
		echo "deb [signed-by=$debian_keyring] $(debian_mirror) $s main"
	done >"$dir/sources.list"
	: >"$dir/preferences"
	: >"$dir/status"
	debian_without "$dir" debconf # the packages that dpkg would configure depend on it
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
		# As root apt fetches as another user, who cannot write to a private folder.
		[ "$(id -u)" != 0 ] || echo 'APT::Sandbox::User "root";'
		apt-config dump | grep -iE '^Acquire::(https?::Proxy|Check-Valid-Until|Check-Date)' || :
	} >"$dir/apt.conf"
)

# debian_without makes apt leave out packages that others depend on. Nothing is configured here.
debian_without() ( # DIR PACKAGE...
	dir=$1
	shift
	for p in "$@"; do
		printf 'Package: %s\nStatus: install ok installed\nVersion: 9:999\nArchitecture: all\nMaintainer: nobody\nDescription: left out\n\n' "$p"
	done >>"$dir/status"
)

# debian_unpack unpacks the packages that apt has downloaded into a new root, and removes them.
debian_unpack() ( # DIR ROOT
	# Debian's merged /usr, which older packages leave to the installer.
	mkdir -p "$2/usr/bin" "$2/usr/sbin" "$2/usr/lib" "$2/usr/lib64"
	for d in bin sbin lib lib64; do
		ln -s "usr/$d" "$2/$d"
	done
	for deb in "$1"/archives/*.deb; do
		dpkg-deb --fsys-tarfile "$deb" | tar -C "$2" -x --keep-directory-symlink --no-same-owner \
			--exclude=./usr/share/doc --exclude=./usr/share/man --exclude=./usr/share/locale --exclude=./usr/lib/*/gconv
	done
	rm -f "$1"/archives/*.deb
	[ -e "$2/bin/sh" ] || ln -s dash "$2/bin/sh"
)
