# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# TTM's KUnit tests, those of our series among them, as programs: the kernel's own
# tool builds User Mode Linux. Needs common.sh, root.sh, sources.sh and modules.sh.

# Of the resolved kernel, twice: with the series, and as a control without the patch
# whose bug the tests find.
build_kunit() {
	local folder=$cache/build/kunit-$kernel patches patch fix
	mapfile -t patches < <(series_patches "kernel-patches/$kernel")
	unpack_linux "$folder"
	for patch in "${patches[@]}"; do
		in_root git -C "/cache/build/kunit-$kernel" apply --unsafe-paths "/hostblob/$patch"
		case $patch in *-drm-ttm-Unmap-a-buffer-*) fix=$patch ;; esac
	done
	in_root bash -euo pipefail -c '
		cd "/cache/build/kunit-$1"
		rm -rf "/cache/kunit/$1"
		mkdir -p "/cache/kunit/$1"
		for program in series control; do
			[ "$program" = series ] || git apply -R --unsafe-paths "/hostblob/$2"
			python3 tools/testing/kunit/kunit.py build --jobs "$(nproc)" --kunitconfig=drivers/gpu/drm/ttm/tests
			cp .kunit/linux "/cache/kunit/$1/$program"
		done
		rm -rf "/cache/build/kunit-$1"
	' build_kunit "$kernel" "$fix"
}
