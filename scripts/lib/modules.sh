# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# KVM's modules for Debian's own kernel, built out of tree from Debian's own
# source of exactly that version. Needs common.sh, root.sh and sources.sh.

# What the modules are made of; a patch may touch more (documentation, other
# architectures, tests), which a module does not need.
kvm_paths=(arch/x86/kvm virt/kvm include/linux/kvm_host.h include/linux/kvm_types.h)

# Unpacked, not installed: installing them would bring in a kernel with its
# initramfs, which nothing here boots.
install_headers() {
	local package common=${kernel_release%-amd64}
	[ ! -d "$root/usr/src/linux-headers-$kernel_release" ] || return 0
	for package in "linux-kbuild-$common" "linux-headers-$common-common" "linux-headers-$kernel_release"; do
		package=$(get_package "$package=$kernel_version")
		in_root dpkg-deb -x "/cache/packages/$package" /
	done
}

# unpack_kvm FOLDER: KVM's source, arranged so that it builds out of tree.
unpack_kvm() {
	unpack_linux "$kernel_version" "$1" "${kvm_paths[@]}"
	mkdir -p "$1/include/trace" # on the way from it to the tracepoint headers
	# In the kernel tree these are found through srctree; here our copies have
	# to win over the installed headers.
	sed -i -e 's|\$(srctree)/virt/kvm/Makefile.kvm|$(src)/../../../virt/kvm/Makefile.kvm|' \
		-e 's|-I *\$(srctree)/arch/x86/kvm|-I $(src) -I $(src)/../../../include/trace|' \
		"$1/arch/x86/kvm/Makefile"
	sed -i '1i LINUXINCLUDE := -I$(src)/../../../include $(LINUXINCLUDE)' "$1/arch/x86/kvm/Makefile"
}

# apply_to_kvm FOLDER PATCH...
apply_to_kvm() {
	local folder=$1 patch include=()
	shift
	for path in "${kvm_paths[@]}"; do
		case $path in
		*.h) include+=("--include=$path") ;;
		*) include+=("--include=$path/*") ;;
		esac
	done
	for patch in "$@"; do
		in_root git -C "/cache${folder#"$cache"}" apply --unsafe-paths "${include[@]}" "/hostblob/$patch" || return
	done
}

# make_kvm FOLDER [MAKE ARGUMENT]...
make_kvm() {
	local folder=$1
	shift
	in_root make -j "$(nproc)" -C "/usr/src/linux-headers-$kernel_release" \
		"M=/cache${folder#"$cache"}/arch/x86/kvm" "$@" modules
}

# install_kvm FOLDER OUTPUT: without debug information, which makes loading slow
# on an emulated host, and without BTF, which has to match vmlinux's.
install_kvm() {
	local folder=$1 output=$2 module
	mkdir -p "$output.partial"
	for module in kvm kvm-amd kvm-intel; do
		in_root objcopy --strip-debug -R .BTF "/cache${folder#"$cache"}/arch/x86/kvm/$module.ko" \
			"/cache${output#"$cache"}.partial/$module.ko"
	done
	rm -rf "$output"
	mv "$output.partial" "$output"
}

# series_patches SERIES: its patches in order, relative to the checkout.
series_patches() {
	sed "s|^|$1/|" "$checkout/$1/series"
}

build_kvm() {
	local folder=$cache/build/kvm-$kernel_version patches
	mapfile -t patches < <(series_patches kernel-patches/6.12)
	install_headers
	unpack_kvm "$folder"
	apply_to_kvm "$folder" "${patches[@]}"
	make_kvm "$folder"
	install_kvm "$folder" "$cache/modules/$kernel_release"
}
