# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# What the kernel of this host has, for tests that run on it. The facts are those of
# kernel-patches/VERSION/base, of the newest series that is not newer than the kernel.

# version_number VERSION: of a release or of a folder of kernel-patches, to compare.
version_number() {
	[[ $1 =~ ^([0-9]+)\.([0-9]+) ]] && printf '%d\n' $((BASH_REMATCH[1] * 1000 + BASH_REMATCH[2]))
}

# has WORD: whether this kernel's base file has it after `has`; kernel-patches/README.md
# says what the words mean.
has() {
	local key words file number this newest=-1 found=''
	this=$(version_number "$(uname -r)")
	for file in "${BASH_SOURCE[0]%/*}"/../../kernel-patches/*/base; do
		number=${file%/base}
		number=$(version_number "${number##*/}")
		if [ "$number" -le "$this" ] && [ "$number" -gt "$newest" ]; then newest=$number found=$file; fi
	done
	[ -n "$found" ] || return 1
	while read -r key words; do
		[[ $key != has || " $words " != *" $1 "* ]] || return 0
	done <"$found"
	return 1
}
