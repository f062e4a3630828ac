# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Modules that lack a part of the series, or have a fault that a test has to find.
# Needs common.sh, root.sh, sources.sh and modules.sh. A variant is called
#   first-N   the first N patches of the series
#   NAME      the whole series and tests/fixes/NAME.patch

# variants_of KERNEL: those that tests/fixes/table names.
variants_of() {
	awk -v kernel="$1" '$1 == kernel { print $2 }' "$checkout/tests/fixes/table" | sort -u
}

# Of the resolved kernel, in one git tree, so that little is compiled anew.
build_variants() {
	local folder=$cache/build/variants-$kernel patch variant number=0
	commit() {
		in_root git -C "/cache${folder#"$cache"}" add -A -f . ':!*.o' ':!*.ko' ':!*.mod*' ':!*.cmd'
		in_root git -C "/cache${folder#"$cache"}" -c user.name=variant -c user.email=variant@localhost \
			commit -q --allow-empty -m "$1"
		in_root git -C "/cache${folder#"$cache"}" tag "$1"
	}
	install_headers
	unpack_modules "$folder"
	in_root git -C "/cache${folder#"$cache"}" init -q
	commit first-0
	while read -r patch; do
		number=$((number + 1))
		apply_to_modules "$folder" "$patch"
		commit "first-$number"
	done < <(series_patches "kernel-patches/$kernel")
	for variant in $(variants_of "$kernel"); do
		if [ -f "$checkout/tests/fixes/$variant.patch" ]; then
			in_root git -C "/cache${folder#"$cache"}" checkout -q -f "first-$number"
			apply_to_modules "$folder" "tests/fixes/$variant.patch"
			commit "$variant"
		fi
		in_root git -C "/cache${folder#"$cache"}" checkout -q -f "$variant"
		make_modules "$folder"
		install_modules "$folder" "$cache/modules/$kernel_release+$variant"
	done
}
