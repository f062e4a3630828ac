# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# The Debian 13 root in which everything is built and from which the emulated
# hosts get their user space, and a small Debian 12 root for the modules of Debian
# 12's kernel, which need its compiler. Needs common.sh. Works as root, and as a
# user with subordinate ids (package uidmap).

# What the functions below are about; to have them work in the other root:
# root=$root_bookworm FUNCTION
root=$cache/root
root_bookworm=$cache/root-bookworm
packages=(
	# building
	bc bison build-essential ca-certificates ccache cpio file flex git kmod
	libcmocka-dev libdrm-dev libegl-dev libelf-dev libepoxy-dev libfdt-dev libgbm-dev
	libglib2.0-dev libpixman-1-dev libpng-dev libssl-dev libvirglrenderer-dev meson ninja-build pahole pkgconf python3
	python3-venv rsync xz-utils zstd
	# running: the emulator, and what the emulated hosts and guests need
	bochs bochs-term bochsbios busybox-static isolinux libegl-mesa0 libgl1-mesa-dri netpbm
	qemu-system-modules-opengl qemu-system-modules-spice qemu-system-x86 syslinux-common virgl-server
	xorriso
	# checking
	clang clang-tidy cppcheck libclang-rt-19-dev llvm shellcheck
)
packages_bookworm=(
	bc bison build-essential busybox-static ca-certificates ccache cpio file flex git
	kmod libelf-dev libssl-dev python3 xz-utils
)

# mirror_of LABEL: where this machine's own apt finds Debian's archive.
mirror_of() {
	apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(REPO_URI)' 2>/dev/null |
		awk -F'|' -v label="$1" '$1 == "Debian" && $2 == label { print $3; exit }'
}

# Whether there is a network, as apt sees it.
mirror_answers() {
	local answer
	answer=$(mktemp)
	/usr/lib/apt/apt-helper -o Acquire::Retries=0 download-file "$(mirror_of Debian)dists/trixie/InRelease" "$answer" >/dev/null 2>&1 ||
		{ rm -f "$answer" && return 1; }
	rm -f "$answer"
}

# in_root COMMAND...: run it inside the root, with the checkout at /hostblob and
# the cache at /cache. Mounts are private to the command: nothing is left behind.
in_root() {
	local namespace=(unshare --mount --propagation private)
	[ "$(id -u)" = 0 ] || namespace+=(--map-root-user --map-auto)
	"${namespace[@]}" bash -euc '
		root=$1 cache=$2 checkout=$3; shift 3
		mount --bind "$root" "$root/srv/root"
		for tree in /dev /proc /sys; do mount --rbind "$tree" "$root$tree"; done
		mount --bind "$cache" "$root/cache"
		mount --bind "$checkout" "$root/hostblob"
		mount -t tmpfs tmpfs "$root/tmp"
		exec /usr/sbin/chroot "$root" /usr/bin/env -i HOME=/root TERM="${TERM:-dumb}" LANG=C.UTF-8 \
			PATH=/usr/lib/ccache:/usr/sbin:/usr/bin:/sbin:/bin CCACHE_DIR=/cache/ccache \
			${http_proxy:+http_proxy="$http_proxy"} ${NO_COLOR:+NO_COLOR=1} \
			${HOSTBLOB_TESTS:+HOSTBLOB_TESTS="$HOSTBLOB_TESTS"} "$@"
	' in_root "$root" "$cache" "$checkout" "$@"
}

# Sets `suite` and `names`, the packages.
describe_root() {
	suite=trixie names=("${packages[@]}")
	[ "$root" != "$root_bookworm" ] || { suite=bookworm names=("${packages_bookworm[@]}"); }
}

# The packages' list is a root's identity: another list makes a new root.
root_identity() {
	local suite names
	describe_root
	printf '%s\n' "${names[@]}" "$suite-backports" | sha256sum | cut -c1-16
}

root_is_ready() {
	[ "$(cat "$root.identity" 2>/dev/null)" = "$(root_identity)" ]
}

# Whether one of `kernels` is Debian 12's.
bookworm_is_needed() {
	local kernel
	for kernel in "${kernels[@]}"; do
		[ "$(kernel_fact "$kernel" root)" != bookworm ] || return 0
	done
	return 1
}

roots_are_ready() {
	root_is_ready && { ! bookworm_is_needed || root=$root_bookworm root_is_ready; }
}

make_root() {
	local mirror security mode=root partial=$root.partial suite names sources
	describe_root
	mirror=$(mirror_of Debian)
	security=$(mirror_of Debian-Security)
	security=${security:-${mirror%/debian/}/debian-security/}
	sources=("deb $mirror $suite main" "deb $mirror $suite-updates main" "deb $security $suite-security main")
	[ "$suite" != trixie ] || sources+=("deb $mirror trixie-backports main" "${sources[@]/#deb /deb-src }")
	[ "$(id -u)" = 0 ] || mode=unshare
	remove_root_tree "$partial"
	remove_root_tree "$root"
	rm -f "$root.identity"
	mmdebstrap --mode="$mode" --variant=minbase --architectures=amd64 \
		--aptopt='Apt::Install-Recommends "false"' \
		--aptopt='Acquire::Languages "none"' \
		--dpkgopt='path-exclude=/usr/share/man/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' \
		--include="$(IFS=,; printf '%s' "${names[*]}")" \
		--customize-hook='mkdir -p "$1/cache" "$1/hostblob" "$1/srv/root"' \
		"$suite" "$partial" "${sources[@]}"
	mv "$partial" "$root"
	root_identity >"$root.identity"
}

remove_root_tree() {
	[ -e "$1" ] || return 0
	if [ "$(id -u)" = 0 ]; then
		rm -rf --one-file-system "$1"
	else
		unshare --map-root-user --map-auto rm -rf --one-file-system "$1"
	fi
}
