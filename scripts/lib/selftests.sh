# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# The kernel's own KVM selftests, with the one that our series adds. Needs
# common.sh, root.sh, sources.sh and modules.sh.

build_selftests() {
	local folder=$cache/build/selftests patches
	resolve_kernel "$main_kernel"
	mapfile -t patches < <(series_patches "kernel-patches/$kernel" | sed 's|^|/hostblob/|')
	unpack_linux "$folder"
	in_root bash -euo pipefail -c '
		cd /cache/build/selftests
		for patch in "$@"; do
			git apply --unsafe-paths --include="tools/testing/selftests/kvm/*" --include="include/uapi/*" "$patch"
		done
		make -s headers
		make -s -j "$(nproc)" -C tools/testing/selftests/kvm EXTRA_CFLAGS="-Wno-error -w"
		rm -rf /cache/selftests
		mkdir -p /cache/selftests
		find tools/testing/selftests/kvm -type f -executable ! -name "*.sh" ! -name "*.py" -exec cp {} /cache/selftests/ \;
	' build_selftests "${patches[@]}"
}
