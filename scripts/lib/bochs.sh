# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# An emulated host with VMX and EPT: QEMU's emulation has none, Bochs's has. It
# shares no folders, so the initrd has all that a run needs, and what a run leaves
# in /run/host-vm comes back as an archive through a serial port. Needs common.sh,
# root.sh and sources.sh, and `kernel` to be set.

# write_bochsrc FOLDER: serial ports are the kernel's console, the command's output
# and the archive. Time is counted in instructions, and idle time passes at once.
write_bochsrc() {
	# The usual one has posted interrupts; some kernels say nothing when they boot on it.
	local model
	model=$(kernel_fact "$kernel" bochs-cpu)
	cat <<-END
		display_library: term
		memory: guest=$memory, host=$memory
		cpu: model=${model:-tigerlake}, count=1, ips=50000000, reset_on_triple_fault=0, ignore_bad_msrs=1
		pci: enabled=1, chipset=i440fx, slot1=pcivga
		vga: extension=vbe
		romimage: file=/usr/share/bochs/BIOS-bochs-latest
		vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
		ata0-master: type=cdrom, path=$1/boot.iso, status=inserted
		boot: cdrom
		com1: enabled=1, mode=file, dev=$1/console
		com2: enabled=1, mode=file, dev=$1/output
		com3: enabled=1, mode=file, dev=$1/exchange.tar
		clock: sync=none, time0=1700000000
		panic: action=fatal, TERM=report
		error: action=ignore
		info: action=ignore
		log: $1/log
	END
}

# run_bochs FOLDER KERNEL INITRD PARAMETERS: as paths in the root. Returns 124 when it
# took too long; power off is an error to Bochs.
run_bochs() {
	local folder=$1 status=0 emulator
	write_bochsrc "$folder" >"$run/bochsrc"
	: >"$run/output"
	in_root bash -euo pipefail -c '
		folder=$1 kernel=$2 initrd=$3 parameters=$4
		mkdir "$folder/iso"
		cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 "$folder/iso/"
		cp "$kernel" "$folder/iso/linux"
		mv "$initrd" "$folder/iso/initrd"
		printf "default linux\nlabel linux\nkernel linux\nappend initrd=initrd %s\n" "$parameters" >"$folder/iso/isolinux.cfg"
		xorriso -as mkisofs -quiet -o "$folder/boot.iso" -b isolinux.bin -c boot.cat -no-emul-boot \
			-boot-load-size 4 -boot-info-table "$folder/iso" 2>"$folder/log" || { cat "$folder/log" >&2 && exit 1; }' iso "$@"
	# Its display needs a terminal, and neither its loss nor SIGTERM ends it soon.
	in_root script -qec "echo \$\$ >$folder/pid; exec timeout -k 2 $limit setpriv --pdeathsig KILL bochs-bin -q -f $folder/bochsrc" /dev/null </dev/null >/dev/null 2>&1 &
	emulator=$!
	trap 'kill "$(cat "$run/pid")" 2>/dev/null; rm -rf "$run"' EXIT
	tail -n +1 -f --pid="$emulator" "$run/output"
	wait "$emulator" || status=$?
	trap 'rm -rf "$run"' EXIT
	[ ! -s "$run/exchange.tar" ] || tar -xf "$run/exchange.tar" -C "$run/exchange"
	case $status in
	1) return 0 ;;
	137) return 124 ;;
	*) return "$status" ;;
	esac
}
