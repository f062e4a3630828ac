# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Runs inside the Debian root: what an emulated host boots from.

# unpack_image RELEASE TREE PACKAGE...: unpack Debian's kernel and its modules.
unpack_image() {
	local release=$1 tree=$2 package
	shift 2
	rm -rf "$tree"
	for package in "$@"; do dpkg-deb -x "/cache/packages/$package" "$tree"; done
	if [ ! -e "$tree/boot/vmlinuz-$release" ]; then
		mkdir -p "$tree/boot"
		cp "$tree/usr/lib/modules/$release/vmlinuz.unsigned" "$tree/boot/vmlinuz-$release"
	fi
	# modprobe wants the modules and their index under one prefix.
	[ -e "$tree/lib" ] || ln -s usr/lib "$tree/lib"
	depmod -b "$tree" "$release"
}

# add_modules TREE RELEASE ROOT MODULE...: copy modules and what they need,
# unpacked, so that busybox can load them.
add_modules() {
	local tree=$1 release=$2 root=$3 module path target
	shift 3
	for module in "$@"; do
		modprobe -d "$tree" -S "$release" --show-depends "$module" || return
	done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | sort -u | while read -r path; do
		target=$root/lib/modules/$release/$(basename "${path%.xz}")
		mkdir -p "${target%/*}"
		case $path in
		*.xz) xz -dc "$path" >"$target" ;;
		*) cp "$path" "$target" ;;
		esac
	done
}

# add_program ROOT PROGRAM [FOLDER]: copy it, to where it is or to FOLDER, and the
# libraries that it needs.
add_program() {
	local root=$1 program=$2 file
	ldd "$program" | awk '{ for (i = 1; i <= NF; i++) if ($i ~ "^/") print $i }' | while read -r file; do
		install -D "$file" "$root/$file"
	done
	install -D "$program" "$root/${3:-${program%/*}}/${program##*/}"
}

# add_test_driver HEADERS FOLDER: build tests/kmod for the kernel of these headers.
add_test_driver() {
	local build
	build=$(mktemp -d)
	cp /hostblob/tests/kmod/* "$build/"
	make -C "$1" M="$build" W=1 modules
	objcopy --strip-debug -R .BTF "$build/hostblob_ttm.ko" "$2/hostblob_ttm.ko"
	rm -rf "$build"
}

# begin_image RELEASE INIT: sets `root`, the folder of a new initrd with busybox and with
# INIT as process 1.
begin_image() {
	root=$(mktemp -d)
	mkdir -p "$root"/{bin,dev,proc,sys} "$root/lib/modules/$1"
	cp /usr/bin/busybox "$root/bin/"
	ln -s busybox "$root/bin/sh"
	install -m755 "/hostblob/scripts/lib/$2" "$root/init"
}

# finish_image TREE RELEASE ROOT OUTPUT: index its modules and pack it.
finish_image() {
	cp "$1/lib/modules/$2"/modules.{order,builtin,builtin.modinfo} "$3/lib/modules/$2/"
	depmod -b "$3" "$2"
	pack "$3" "$4"
}

# make_host_image TREE RELEASE HEADERS OUTPUT [amdgpu] DRIVER...: the initrd of an emulated
# host, with the test driver. amdgpu, which is larger than all the others, is in one of its
# own, OUTPUT-amdgpu.cpio, with these.
make_host_image() {
	local tree=$1 release=$2 headers=$3 output=$4 root engine amdgpu=0
	shift 4
	[ "$1" != amdgpu ] || { amdgpu=1 && shift; }
	begin_image "$release" host-init
	add_modules "$tree" "$release" "$root" virtio_pci 9pnet_virtio 9p kvm_amd kvm_intel drm_ttm_helper "$@"
	add_test_driver "$headers" "$root/lib/modules/$release"
	[ "$amdgpu" = 0 ] || cp -r "$root" "$root-amdgpu"
	finish_image "$tree" "$release" "$root" "$output"
	[ "$amdgpu" = 1 ] || return 0
	root+=-amdgpu
	add_modules "$tree" "$release" "$root" amdgpu
	mkdir -p "$root/lib/firmware/amdgpu"
	for engine in sdma sdma1 pfp me ce mec mec2 rlc; do /hostblob/tests/amdgpu/make-firmware "$root/lib/firmware/amdgpu/kaveri_$engine.bin"; done
	finish_image "$tree" "$release" "$root" "${output%.cpio}-amdgpu.cpio"
}

# make_guest_image TREE RELEASE OUTPUT [MODULE]...: the initrd of a small guest, with
# these modules in the place of Debian's.
make_guest_image() {
	local tree=$1 release=$2 output=$3 root program
	shift 3
	begin_image "$release" guest-init
	for program in prefix/bin/guestblob build/tools/tests/guest/{hole,hostile}; do
		add_program "$root" "/cache/$program" /bin
	done
	add_modules "$tree" "$release" "$root" virtio_pci virtio_gpu
	[ $# = 0 ] || cp "$@" "$root/lib/modules/$release/"
	finish_image "$tree" "$release" "$root" "$output"
}

# pack FOLDER OUTPUT: a cpio that the kernel can join with others.
pack() {
	(cd "$1" && find . -mindepth 1 | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) >"$2.partial"
	mv "$2.partial" "$2"
	rm -rf "$1"
}

# pack_user_space EXCHANGE OUTPUT: what a host without shared folders has instead: bash,
# the tests, their programs and facts of kernels, and what host-vm left in EXCHANGE.
pack_user_space() {
	local exchange=$1 output=$2 root program
	root=$(mktemp -d)
	mkdir -p "$root/usr" "$root/tmp" "$root/hostblob"
	ln -s /bin "$root/usr/bin"
	add_program "$root" /bin/bash
	for program in /cache/build/tools/tests/host/* /cache/build/tools/guest/guestblob; do
		[ ! -f "$program" ] || add_program "$root" "$program"
	done
	cp -r /hostblob/tests "$root/hostblob/"
	(cd /hostblob && cp --parents kernel-patches/*/base "$root/hostblob/")
	mkdir "$root/run"
	cp -r "$exchange" "$root/run/host-vm"
	pack "$root" "$output"
}
