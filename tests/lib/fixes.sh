# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Tests of a series without one of its patches, for more than one suite.

# fixes KERNEL: the rows of kernel-patches/KERNEL/fixes.
fixes() {
	local variant parameters want command
	# shellcheck source=tests/lib/ktap.sh
	. "$checkout/tests/lib/ktap.sh"
	resolve_kernel "$1"
	ktap_begin
	while read -r variant parameters want command; do
		ktap_check "$variant: $command $want" without_fix "$@"
	done < <(grep -v '^#' "$checkout/kernel-patches/$1/fixes")
	ktap_end
}

# without_fix KERNEL: the row that the caller has read.
without_fix() {
	local status=0
	"$checkout/scripts/host-vm" --kernel "$1" --driver hostblob_ttm --append "${parameters#-}" --timeout 120 \
		--modules "$cache/modules/$kernel_release+$variant" bash -c "/cache/build/tools/tests/host/$command" || status=$?
	printf 'exit status %d\n' "$status"
	case $want$status in passes0 | fails1) ;; *) return 1 ;; esac
}
