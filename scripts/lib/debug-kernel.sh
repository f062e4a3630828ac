# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A small kernel with KASAN, lockdep and page_ref tracepoints, from Debian's
# source and the fragments in kernel-patches/config, with its modules built twice:
# as they are, and with our series. Needs common.sh, root.sh, sources.sh and modules.sh.

build_debug_kernel() {
	local folder=$cache/build/linux-debug patches patch
	resolve_kernel "$main_kernel"
	mapfile -t patches < <(series_patches "kernel-patches/$kernel" | sed 's|^|/hostblob/|')
	unpack_linux "$folder"
	in_root bash -euo pipefail -c '
		cd /cache/build/linux-debug
		make -s tinyconfig
		scripts/kconfig/merge_config.sh -m .config /hostblob/kernel-patches/config/{base,host,debug}.config
		printf "CONFIG_LOCALVERSION=\"-debug\"\n" >>.config
		# iommufd, which Debian does not build.
		printf "CONFIG_%s=y\n" IOMMU_SUPPORT INTEL_IOMMU IRQ_REMAP VFIO_DEVICE_CDEV >>.config
		printf "CONFIG_%s=m\n" IOMMUFD VFIO VFIO_PCI >>.config
		make -s olddefconfig
		make -s -j "$(nproc)" bzImage modules
		release=$(make -s kernelrelease)
		tree=/cache/linux/debug
		rm -rf "$tree" "$tree.partial"
		mkdir -p "$tree.partial/boot" "$tree.partial/usr/lib"
		ln -s usr/lib "$tree.partial/lib"
		make -s INSTALL_MOD_PATH="$tree.partial" modules_install
		cp arch/x86/boot/bzImage "$tree.partial/boot/vmlinuz-$release"
		mv "$tree.partial" "$tree"
		printf "%s\n" "$release" >"$tree/release"
		. /hostblob/scripts/lib/images.sh
		make_host_image "$tree" "$release" /cache/build/linux-debug /cache/images/host-debug.cpio qxl bochs \
			vfio_iommu_type1 vfio_pci
	'
	for patch in "${patches[@]}"; do
		in_root git -C /cache/build/linux-debug apply --unsafe-paths "$patch"
	done
	in_root bash -euo pipefail -c '
		cd /cache/build/linux-debug
		make -s -j "$(nproc)" modules
		rm -rf /cache/modules/debug
		mkdir -p /cache/modules/debug
		cp arch/x86/kvm/*.ko drivers/gpu/drm/ttm/ttm.ko /cache/modules/debug/
		# To see that a guest which writes to free pages is noticed.
		rm -rf /cache/modules/debug+stock-ttm
		mkdir /cache/modules/debug+stock-ttm
		cp arch/x86/kvm/*.ko /cache/modules/debug+stock-ttm/
	'
}
