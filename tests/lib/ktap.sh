# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# What every test script needs to print KTAP (Documentation/dev-tools/ktap.rst of Linux).
#
#	. "$(dirname "$0")/../lib/ktap.sh"
#	ktap_begin
#	ktap_check 'what holds' program argument
#	ktap_end
#
# HOSTBLOB_TESTS, a glob, names the tests that are wanted; scripts/test sets it. The plan
# comes last, as only the end tells how many were.

ktap_number=0 ktap_failed=0

# Says more after a test has failed; a script may have another one.
ktap_on_failure() {
	:
}

ktap_begin() {
	# What meson reads is TAP's first line only.
	if [ -n "${MESON_TEST_ITERATION:-}" ]; then
		printf 'TAP version 13\n'
	else
		printf 'KTAP version 1\n'
	fi
}

# ktap_wants NAME...: whether one of these is to run. Ask before work that only they need.
ktap_wants() {
	local name
	[ -n "${HOSTBLOB_TESTS:-}" ] || return 0
	for name; do
		# shellcheck disable=SC2053 # a glob
		[[ $name != $HOSTBLOB_TESTS ]] || return 0
	done
	return 1
}

# ktap_say TEXT: lines that explain the next result.
ktap_say() {
	[ -z "$1" ] || printf '# %s\n' "${1//$'\n'/$'\n# '}"
}

# ktap_result STATUS NAME [DETAIL]: 0 is a pass, 77 a skip, whose reason is DETAIL.
ktap_result() {
	ktap_wants "$2" || return 0
	ktap_number=$((ktap_number + 1))
	[ "$1" = 77 ] || ktap_say "${3:-}"
	case $1 in
	0) printf 'ok %d %s\n' "$ktap_number" "$2" ;;
	77) printf 'ok %d %s # SKIP %s\n' "$ktap_number" "$2" "${3#skipped: }" ;;
	*)
		ktap_on_failure
		printf 'not ok %d %s\n' "$ktap_number" "$2"
		ktap_failed=1
		;;
	esac
}

# ktap_check NAME COMMAND...: its exit status is the result, what it prints the detail. Its
# variables must not hide the script's from ktap_on_failure.
ktap_check() {
	local ktap_name=$1 ktap_status=0 ktap_printed
	shift
	ktap_wants "$ktap_name" || return 0
	ktap_printed=$("$@" 2>&1 </dev/null) || ktap_status=$?
	ktap_result "$ktap_status" "$ktap_name" "$ktap_printed"
}

# ktap_end: the plan; exits 1 if a test has failed.
ktap_end() {
	if [ "$ktap_number" = 0 ]; then
		printf '1..0 # SKIP no test of this name\n'
	else
		printf '1..%d\n' "$ktap_number"
	fi
	exit "$ktap_failed"
}
