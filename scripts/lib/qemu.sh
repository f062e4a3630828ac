# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# QEMU with our series, from Debian's source. Needs common.sh, root.sh,
# sources.sh and modules.sh.

# The devices that the tests' guests have, on top of what a PC is made of.
qemu_devices=(I440FX Q35 VGA_PCI VIRTIO_BLK VIRTIO_GPU VIRTIO_PCI VIRTIO_VGA)

build_qemu() {
	local folder=$cache/build/qemu patch patches
	unpack_qemu "$folder"
	mapfile -t patches < <(series_patches qemu-patches/10.0)
	for patch in "${patches[@]}"; do
		in_root git -C /cache/build/qemu apply --unsafe-paths "/hostblob/$patch"
	done
	printf 'CONFIG_%s=y\n' "${qemu_devices[@]}" >"$folder/configs/devices/x86_64-softmmu/hostblob.mak"
	in_root bash -euo pipefail -c '
		cd /cache/build/qemu
		export PKG_CONFIG_PATH=/cache/prefix/lib/x86_64-linux-gnu/pkgconfig
		./configure --target-list=x86_64-softmmu --with-devices-x86_64=hostblob \
			--without-default-devices --without-default-features --disable-docs --disable-tools \
			--disable-install-blobs --enable-hostblob --enable-kvm --enable-pixman --enable-png --enable-tcg
		ninja -C build qemu-system-x86_64
		install -s build/qemu-system-x86_64 /cache/prefix/bin/
	'
}
