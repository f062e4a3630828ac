# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# What a file in tests/suites has at hand, beside scripts/lib/{common,root,sources}.sh.
# tests/lib/template is such a file, with comments.

# group NAME COMMAND...: a command, or a function of the suite's, that prints KTAP. Its
# tests are called SUITE:NAME:TEST. Groups run side by side, in any order.
group() {
	ids+=("$suite:$1")
	commands+=("$(printf '%q ' "${@:2}")")
}

# on_host KERNEL KVM DRIVER [OPTION]... COMMAND...: run it with scripts/host-vm. A driver
# that was asked for and is not there is a failure, so nothing may be skipped.
on_host() {
	"$checkout/scripts/host-vm" --kernel "$1" --kvm "$2" --driver "$3" "${@:4}" |
		sed -u -E 's/\r$//; s/^ok ([0-9]+ .*) # SKIP (.*)/# skipped on a host that was made for it: \2\nnot ok \1/'
}
