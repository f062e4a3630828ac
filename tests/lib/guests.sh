# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Linux guests on emulated hosts, for more than one suite.

# guest KERNEL DRIVER SCRIPT [ARGUMENT]...: one of tests/vm. The guest's kernel is the same
# wherever it runs.
guest() {
	local options=(--timeout 1800)
	[ "$3" != vfio ] || options+=(--iommu)
	resolve_kernel "$main_kernel"
	on_host "$1" patched "$2" "${options[@]}" "/hostblob/tests/vm/$3" /cache "$kernel_release" /run/host-vm "${@:4}"
}

# guest_and_old KERNEL DRIVER BLOBS: with a second guest, of an older kernel.
guest_and_old() {
	local release
	resolve_kernel "$(kernels_where role old-guest)"
	release=$kernel_release
	guest "$1" "$2" run "$3" "$release"
}
