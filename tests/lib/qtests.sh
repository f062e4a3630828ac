# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# QEMU's own tests of the devices, and of what else we mend, for more than one suite.

# qtest_groups EMULATOR: one of those in the cache's prefix.
qtest_groups() {
	local program
	for program in {iothread-dma,virtio-gpu{,-hostblob{,-cross-domain}}}-test; do
		group "$program" qtest "$1" "$program"
	done
	# The one of QEMU's that is ours; the others need devices that we don't build.
	group device-plug-test qtest "$1" device-plug-test -p /x86_64/device-plug/pci-unplug-after-mtree
}

# qtest EMULATOR PROGRAM [OPTION]...: with a little quarantine, as tests look at how much
# memory QEMU has, and with files that a test can truncate.
qtest() {
	in_root env ASAN_OPTIONS=detect_leaks=0:quarantine_size_mb=1:verify_asan_link_order=0 \
		UBSAN_OPTIONS=halt_on_error=1 LD_PRELOAD=/cache/build/tools/tests/device/unsealed.so \
		/hostblob/tests/device/run-qtest "/cache/prefix/bin/$1" "/cache/prefix/bin/$2" "${@:3}"
}
