# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# KVM's modules, TTM's and virtio-gpu's for Debian's own kernel, built out of tree from Debian's
# own source of exactly that version. Needs common.sh, root.sh and sources.sh.

# What the modules are made of; a patch may touch more (documentation, other
# architectures, tests), which a module does not need.
module_paths=(
	arch/x86/kvm virt/kvm include/linux/kvm_host.h include/linux/kvm_types.h
	include/uapi/linux/kvm.h arch/x86/include/asm/kvm_host.h arch/x86/include/uapi/asm/kvm.h
	drivers/gpu/drm/ttm include/drm/ttm drivers/gpu/drm/virtio
)
# The folders to build in, and what is made there.
module_folders=(arch/x86/kvm drivers/gpu/drm/{ttm,virtio})
module_files=(arch/x86/kvm/{kvm,kvm-amd,kvm-intel}.ko drivers/gpu/drm/{ttm/ttm,virtio/virtio-gpu}.ko)

# Unpacked, not installed: installing them would bring in a kernel with its
# initramfs, which nothing here boots.
install_headers() {
	local package headers packages
	[ ! -d "$kernel_root/usr/src/linux-headers-$kernel_release" ] || return 0
	headers=$(get_package "linux-headers-$kernel_release=$kernel_version")
	# Their names differ from Debian to Debian; the first one knows the others'.
	packages=()
	for package in $(in_root dpkg-deb -f "/cache/packages/$headers" Depends | grep -oE 'linux-(kbuild|headers)-[^ ,]+'); do
		packages+=("$(get_package "$package=$kernel_version")")
	done
	# Not by dpkg-deb -x: that would replace the link /lib by Debian 12's folder.
	in_kernel_root bash -euo pipefail -c '
		for package; do
			dpkg-deb --fsys-tarfile "/cache/packages/$package" | tar -x -C / --keep-directory-symlink
		done
	' install "${packages[@]}" "$headers"
}

# unpack_modules FOLDER: their source, arranged so that it builds out of tree.
unpack_modules() {
	unpack_linux "$1" "${module_paths[@]}"
	mkdir -p "$1/include/trace" # on the way from it to the tracepoint headers
	# In the kernel tree these are found through srctree; here our copies have
	# to win over the installed headers.
	sed -i -e 's|\$(srctree)/virt/kvm/Makefile.kvm|$(src)/../../../virt/kvm/Makefile.kvm|' \
		-e 's|-I *\$(srctree)/arch/x86/kvm|-I $(src) -I $(src)/../../../include/trace|' \
		"$1/arch/x86/kvm/Makefile"
	# Their headers in the kernel's order of folders; $(src) is below the sources' top.
	sed -i '1i LINUXINCLUDE := $(addprefix -I$(src)/../../../,arch/x86/include include arch/x86/include/uapi include/uapi) $(LINUXINCLUDE)' \
		"$1/arch/x86/kvm/Makefile"
	sed -i '1i LINUXINCLUDE := -I$(src)/../../../../include $(LINUXINCLUDE)' "$1/drivers/gpu/drm/ttm/Makefile"
	sed -i '1i ccflags-y += -I$(src)/../../../../include/trace' "$1/drivers/gpu/drm/virtio/Makefile"
}

# apply_to_modules FOLDER PATCH...
apply_to_modules() {
	local folder=$1 patch include=()
	shift
	for path in "${module_paths[@]}"; do
		case $path in
		*.[ch]) include+=("--include=$path") ;;
		*) include+=("--include=$path/*") ;;
		esac
	done
	for patch in "$@"; do
		in_root git -C "/cache${folder#"$cache"}" apply --unsafe-paths "${include[@]}" "/hostblob/$patch" || return
	done
}

# make_modules FOLDER [MAKE ARGUMENT]...
make_modules() {
	local folder=$1 part
	shift
	for part in "${module_folders[@]}"; do
		in_kernel_root make -j "$(nproc)" -C "/usr/src/linux-headers-$kernel_release" \
			"M=/cache${folder#"$cache"}/$part" "$@" modules || return
	done
}

# at_least VERSION MINIMUM
at_least() {
	[ "$(printf '%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

# On arm64 KVM used to take the size of a PFNMAP block from the mapping's address, not
# from the host's page table, until "KVM: arm64: Use stage-1 leaf size for VM_PFNMAP"
# (71cc2c67fb8f). With a TTM that maps scattered memory at such addresses, a guest
# there would see what lies next to its buffer. The base file has the oldest version in
# which we have seen that fix.
refuse_unsafe_arm64() {
	local version=${kernel_version%%-*} since
	[[ $kernel_release == *-arm64 ]] || return 0
	since=$(kernel_fact "$kernel" arm64)
	[ -n "$since" ] || die "no series says whether Linux $version is safe on arm64" "use one of ${kernels[*]}"
	at_least "$version" "$since" ||
		die "on arm64, KVM of Linux $version may show a guest the memory next to its buffer" "use Linux $since or newer"
}

# install_modules FOLDER OUTPUT: without debug information, which makes loading slow
# on an emulated host, and without BTF, which has to match vmlinux's.
install_modules() {
	local folder=$1 output=$2 module
	refuse_unsafe_arm64
	mkdir -p "$output.partial"
	for module in "${module_files[@]}"; do
		in_root objcopy --strip-debug -R .BTF "/cache${folder#"$cache"}/$module" \
			"/cache${output#"$cache"}.partial/${module##*/}"
	done
	rm -rf "$output"
	mv "$output.partial" "$output"
}

# series_patches SERIES [HEADING]: its patches in order, relative to the checkout; all,
# or those before a heading.
series_patches() {
	sed -n "${2:+/^# $2\$/q;}/^[0-9]/s|^|$1/|p" "$checkout/$1/series"
}

build_modules() {
	local folder=$cache/build/modules-$kernel_version patches
	refuse_unsafe_arm64
	mapfile -t patches < <(series_patches "kernel-patches/$kernel")
	install_headers
	unpack_modules "$folder"
	[ ${#patches[@]} = 0 ] || apply_to_modules "$folder" "${patches[@]}"
	make_modules "$folder"
	install_modules "$folder" "$cache/modules/$kernel_release"
}
