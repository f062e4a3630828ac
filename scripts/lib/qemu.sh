# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# QEMU with our series, from Debian's source. Needs common.sh, root.sh,
# sources.sh and modules.sh.

# The devices that the tests' guests and hosts have, on top of what a PC is made of.
qemu_devices=(
	AMDGPU_MODEL EDU I440FX IOMMUFD PCI_BRIDGE PCIE_PORT Q35 VFIO_PCI VGA_PCI VIRTIO_9P VIRTIO_BLK
	VIRTIO_GPU VIRTIO_PCI VIRTIO_VGA VTD XIO3130
)

# compile_qemu FOLDER [CONFIGURE OPTION]...: the source in $cache/build/FOLDER, and
# those of its tests that are about our series. Where the same options were used before,
# only what changed.
compile_qemu() {
	local folder=$1
	shift
	printf 'CONFIG_%s=y\n' "${qemu_devices[@]}" \
		>"$cache/build/$folder/configs/devices/x86_64-softmmu/hostblob.mak"
	in_root bash -euo pipefail -c '
		cd "/cache/build/$1"
		shift
		export PKG_CONFIG_PATH=/cache/prefix/lib/x86_64-linux-gnu/pkgconfig
		[ "$(cat build/.options 2>/dev/null)" = "options $*" ] ||
			./configure --target-list=x86_64-softmmu --with-devices-x86_64=hostblob \
				--without-default-devices --without-default-features --disable-docs --disable-tools \
				--disable-install-blobs --enable-kvm --enable-opengl --enable-pixman --enable-png \
				--enable-tcg --enable-virglrenderer --enable-attr --enable-virtfs $*
		printf "options %s\n" "$*" >build/.options
		targets=(qemu-system-x86_64)
		for test in qtest/{device-plug,iothread-dma,virtio-gpu{,-gl,-hostblob{,-cross-domain}}}-test unit/test-host-fault; do
			[ ! -f "tests/$test.c" ] || targets+=("tests/$test")
		done
		ninja -C build "${targets[@]}"
	' compile_qemu "$folder" "$@"
}

# unpack_our_qemu FOLDER [installed]: with all patches, or with those that users install.
unpack_our_qemu() {
	local patch patches
	unpack_qemu "$cache/build/$1"
	[ -n "${2:-}" ] || install -D -t "$cache/build/$1/hw/display/amdgpu" "$checkout"/tests/amdgpu/{amdgpu-model.c,cp.[ch],sdma.[ch]}
	mapfile -t patches < <(series_patches qemu-patches/10.0 ${2:+"For tests only"})
	for patch in "${patches[@]}"; do
		in_root git -C "/cache/build/$1" apply --unsafe-paths "/hostblob/$patch"
	done
}

build_qemu() {
	unpack_our_qemu qemu
	compile_qemu qemu --enable-hostblob
	in_root bash -euc 'cd /cache/build/qemu/build
		install -s qemu-system-x86_64 tests/unit/test-host-fault \
			tests/qtest/{device-plug,iothread-dma,virtio-gpu{,-gl,-hostblob{,-cross-domain}}}-test /cache/prefix/bin/'
}

# Debian's source as it is, with which the device's tests fail, and ours with
# sanitizers, under which they run.
build_qemu_variants() {
	unpack_qemu "$cache/build/qemu-stock"
	compile_qemu qemu-stock
	unpack_our_qemu qemu-sanitized
	compile_qemu qemu-sanitized --enable-hostblob --enable-asan --enable-ubsan
	in_root bash -euc 'for variant; do
		install -s "/cache/build/$variant/build/qemu-system-x86_64" "/cache/prefix/bin/$variant"
	done' build_qemu_variants qemu-stock qemu-sanitized
}
