# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Modules that lack a part of the series, or have a fault that a test has to find.
# Needs common.sh, root.sh, sources.sh and modules.sh. A variant is called
#   before-WORDS  the patches before the one that has these words in its file's name
#   NAME          the whole series and tests/fixes/NAME.patch

# variants_of KERNEL: those that its `fixes` names.
variants_of() {
	sed -n '/^#/!s/ .*//p' "$checkout/kernel-patches/$1/fixes" | sort -u
}

# Of the resolved kernel, in one git tree, so that little is compiled anew.
build_variants() {
	local folder=$cache/build/variants-$kernel patch variant variants
	commit() {
		in_root git -C "/cache${folder#"$cache"}" add -A -f . ':!*.o' ':!*.ko' ':!*.mod*' ':!*.cmd'
		in_root git -C "/cache${folder#"$cache"}" -c user.name=variant -c user.email=variant@localhost \
			commit -q --allow-empty -m "$1"
	}
	# A second patch with these words is an error, as the tag is there.
	tag() {
		in_root git -C "/cache${folder#"$cache"}" tag "$1"
	}
	mapfile -t variants < <(variants_of "$kernel")
	install_headers
	unpack_modules "$folder"
	in_root git -C "/cache${folder#"$cache"}" init -q
	commit base
	while read -r patch; do
		for variant in "${variants[@]}"; do
			if [[ $variant == before-* && $patch == *"${variant#before-}"* ]]; then tag "$variant"; fi
		done
		apply_to_modules "$folder" "$patch"
		commit "$patch"
	done < <(series_patches "kernel-patches/$kernel")
	tag series
	for variant in "${variants[@]}"; do
		if [ -f "$checkout/tests/fixes/$variant.patch" ]; then
			in_root git -C "/cache${folder#"$cache"}" checkout -q -f series
			apply_to_modules "$folder" "tests/fixes/$variant.patch"
			commit "$variant"
			tag "$variant"
		fi
		in_root git -C "/cache${folder#"$cache"}" checkout -q -f "$variant"
		make_modules "$folder"
		install_modules "$folder" "$cache/modules/$kernel_release+$variant"
	done
}
