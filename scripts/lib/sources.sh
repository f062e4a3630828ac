# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Sources and images, as Debian packages. Needs common.sh and root.sh.
#
# A series is a folder kernel-patches/VERSION or qemu-patches/VERSION, whose file `base`
# says what it applies to; kernel-patches/README.md has the keys of a kernel's.

# kernel_fact KERNEL KEY: what comes after the key in the kernel's `base`, or nothing.
kernel_fact() {
	[ ! -f "$checkout/kernel-patches/$1/base" ] || sed -n "s/^$2 \+//p" "$checkout/kernel-patches/$1/base"
}

# kernel_has KERNEL WORD: whether it is one of those after `has`.
kernel_has() {
	[[ " $(kernel_fact "$1" has) " == *" $2 "* ]]
}

# kernels_where KEY WORD: those that have WORD after KEY, in the order of versions.
kernels_where() {
	local base
	for base in "$checkout"/kernel-patches/*/base; do
		base=${base%/base}
		[[ " $(kernel_fact "${base##*/}" "$1") " != *" $2 "* ]] || printf '%s\n' "${base##*/}"
	done | sort -V
}

# One apt update a day is enough, and none is needed for what is cached.
update_root() {
	local stamp=$root.updated
	[ -n "$(find "$stamp" -mmin -1440 2>/dev/null)" ] && [ "$stamp" -nt "$root.identity" ] && return
	in_root apt-get -q update
	touch "$stamp"
}

# The kernels that have a series, and first the one that guests run, and hosts that are
# not told which.
main_kernel=$(kernels_where role main)
mapfile -t kernels < <(printf '%s\n' "$main_kernel"; cd "$checkout/kernel-patches" && printf '%s\n' */base |
	sed 's|/base||' | grep -vxF "$main_kernel" | sort -V)

# resolve_kernel KERNEL: its release, as uname -r says it, and the Debian version
# of Debian's newest build of it; both are written to $cache/kernel-… once, so that
# a series of builds does not change kernels half way. `scripts/build --update`
# looks again. Sets `kernel_root` as well, for in_kernel_root.
resolve_kernel() {
	local file=$cache/kernel-$1 headers
	kernel_root=$cache/root
	[ "$(kernel_fact "$1" root)" != bookworm ] || kernel_root=$root_bookworm
	if [ ! -s "$file" ]; then
		root=$kernel_root update_root
		headers=$(in_kernel_root apt-cache pkgnames "linux-headers-$1." | grep -E '[0-9]-amd64$' | sort -V | tail -n 1)
		[ -n "$headers" ] || die "apt knows no headers of Linux $1 for Debian" "check the network, then run this again"
		in_kernel_root apt-cache show --no-all-versions "$headers" |
			sed -n "s/^Version: /release=${headers#linux-headers-}\nversion=/p" >"$file.partial"
		mv "$file.partial" "$file"
	fi
	# shellcheck disable=SC1090 # written above
	. "$file"
	kernel=$1 kernel_release=$release kernel_version=$version
}

# in_kernel_root COMMAND...: in the root of the resolved kernel's Debian, which has
# the packages and the compiler for its modules.
in_kernel_root() {
	root=$kernel_root in_root "$@"
}

# get_package NAME=VERSION: put the .deb, of the resolved kernel's Debian, in
# $cache/packages and say its name.
get_package() {
	mkdir -p "$cache/packages"
	local found name=${1%%=*} version=${1#*=}
	found=$(compgen -G "$cache/packages/${name}_${version//:/%3a}_*.deb" | head -n 1 || true)
	if [ -z "$found" ]; then
		root=$kernel_root update_root >&2
		in_kernel_root bash -c "cd /cache/packages && apt-get -q -o APT::Sandbox::User=root download '$1'" >&2
		found=$(compgen -G "$cache/packages/${name}_${version//:/%3a}_*.deb" | head -n 1)
	fi
	printf '%s\n' "${found##*/}"
}

# unpack_linux FOLDER [PATH...]: the source of the resolved kernel, or some of it.
unpack_linux() {
	local folder=$1 name=linux-source-$kernel package members=()
	shift
	package=$(get_package "$name=$kernel_version")
	for member in "$@"; do members+=("$name/$member"); done
	rm -rf "$folder.partial" "$folder"
	mkdir -p "$folder.partial"
	in_root bash -euo pipefail -c '
		name=$1 package=$2 folder=$3; shift 3
		dpkg-deb --fsys-tarfile "/cache/packages/$package" |
			tar -xO "./usr/src/$name.tar.xz" |
			tar -xJ -C "$folder" --strip-components=1 --wildcards --no-wildcards-match-slash "$@"
	' unpack "$name" "$package" "/cache${folder#"$cache"}.partial" "${members[@]}"
	mv "$folder.partial" "$folder"
}

# unpack_qemu FOLDER: Debian's QEMU source with Debian's patches applied.
unpack_qemu() {
	local folder=$1
	update_root
	rm -rf "$folder"
	mkdir -p "$cache/packages"
	in_root bash -euo pipefail -c '
		cd /cache/packages
		version=$(apt-cache showsrc qemu | sed -n "s/^Version: //p" | sort -V | tail -n 1)
		apt-get -q -o APT::Sandbox::User=root source --download-only "qemu=$version"
		dsc=$(ls -t qemu_*.dsc | head -n 1)
		rm -rf "$1"
		dpkg-source --no-check -x "$dsc" "$1"
		printf "%s\n" "$version" >"$1/.debian-version"
	' unpack "/cache${folder#"$cache"}"
}
