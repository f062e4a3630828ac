# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# What every command in scripts/ shares: where things live, progress, errors.

set -euo pipefail

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=${HOSTBLOB_CACHE:-${XDG_CACHE_HOME:-${HOME:?}/.cache}/hostblob}
[[ $cache = /* ]] || cache=$PWD/$cache
logs=$cache/logs

# die CAUSE WAY_OUT: one line each, then exit 1.
die() {
	printf '%s: error: %s\n' "${0##*/}" "$1" >&2
	[ -z "${2:-}" ] || printf '  what to do: %s\n' "$2" >&2
	exit 1
}

# usage_error WHAT: for arguments that make no sense; exit 2.
usage_error() {
	printf '%s: %s\n' "${0##*/}" "$1" >&2
	printf "Try '%s --help'.\n" "$0" >&2
	exit 2
}

# A command's manual is the comment block below its SPDX line.
show_help() {
	sed -n '/^# SPDX/d; 1d; /^# shellcheck/q; /^#/!q; s/^# \{0,1\}//p' "$0"
}

# step N/M WHAT COMMAND...: run a long command with its output in a log, showing
# elapsed time on a terminal; on failure show the log's end and where it is.
step() {
	local position=$1 what=$2 log begin status=0 pid
	shift 2
	mkdir -p "$logs"
	log=$logs/$(printf '%s' "$what" | tr -c 'A-Za-z0-9._\n' '-').log
	begin=$SECONDS
	# As a job of its own the command stops at its first error, which a
	# function called in a condition would not.
	(set -e; "$@") >"$log" 2>&1 </dev/null &
	pid=$!
	trap 'kill "$pid" 2>/dev/null; exit 130' INT TERM
	if [ -t 2 ]; then
		while kill -0 "$pid" 2>/dev/null; do
			printf '\r\033[K[%s] %s … %ds  %.60s' "$position" "$what" $((SECONDS - begin)) \
				"$(tail -n 1 "$log" 2>/dev/null | tr -d '\r\t\033')" >&2
			sleep 1
		done
		printf '\r\033[K' >&2
	else
		printf '[%s] %s\n' "$position" "$what" >&2
	fi
	wait "$pid" || status=$?
	trap - INT TERM
	if [ "$status" != 0 ]; then
		tail -n 25 "$log" >&2
		die "$what failed (exit $status after $((SECONDS - begin)) s)" "read $log, then run the same command again: finished steps are kept"
	fi
	printf '[%s] %s: %d s\n' "$position" "$what" $((SECONDS - begin)) >&2
}

# own_cache: it is there, and this user may write to it.
own_cache() {
	mkdir -p "$cache" 2>/dev/null || die "cannot create the cache folder $cache" "set HOSTBLOB_CACHE to a folder that you can write"
	[ -w "$cache" ] || die "the cache folder $cache belongs to $(stat -c %U "$cache")" "set HOSTBLOB_CACHE to a folder that you can write"
}

# need_built FILE WHAT: for commands that don't build what they use.
need_built() {
	[ -e "$1" ] || die "$2 is not built in $cache" "run scripts/build, or set HOSTBLOB_CACHE to the folder of a build"
	own_cache
}

# need_space GIB: refuse early rather than half way through.
need_space() {
	local free
	own_cache
	free=$(df --output=avail -k "$cache" | tail -n 1)
	[ "$free" -ge $(($1 * 1048576)) ] ||
		die "$cache has $((free / 1048576)) GiB free, $1 GiB are needed" "free some space, or set HOSTBLOB_CACHE to a folder on a larger disk"
}

# One command at a time changes the cache; the lock goes with the process.
lock_cache() {
	own_cache
	[ -z "${HOSTBLOB_LOCKED:-}" ] || return 0
	exec 9>"$cache/lock"
	if ! flock -n 9; then
		printf 'waiting for another hostblob command that uses %s\n' "$cache" >&2
		flock 9
	fi
	export HOSTBLOB_LOCKED=1
}
