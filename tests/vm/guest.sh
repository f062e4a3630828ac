# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A Linux guest in QEMU on a KVM host, with the device. Needs cache, release and output:
# the cache's folder, the guest kernel's release and a folder for logs. The caller may
# name another QEMU, its data, display and device. Has tests/lib/ktap.sh.

# shellcheck source=tests/lib/ktap.sh
. "${BASH_SOURCE[0]%/*}/../lib/ktap.sh"

work=$(mktemp -d)
emulator='' ticker=''
trap 'kill $emulator $ticker 2>/dev/null || true; rm -rf "$work"' EXIT
image=$cache/images/guest-$release.cpio
# The test driver's switch: 1 makes every access to every buffer fail.
failing=/sys/module/hostblob_ttm/parameters/fail
traced= # events of QEMU's that go to $output/trace
parameters= # more of the guest kernel's
node=
for candidate in /dev/dri/renderD128 /dev/dri/card0; do
	[ -n "$node" ] || [ ! -e "$candidate" ] || node=$candidate
done
qemu=$cache/prefix/bin/qemu-system-x86_64
data=/usr/share/qemu
display=none
device=virtio-gpu-hostblob-pci,node=$node,hostmem=64M

# start COMMAND [OPTIONS [ARGUMENT]...]: a guest that runs COMMAND, with OPTIONS
# for the device and ARGUMENTs for QEMU. Its serial line is file descriptor 3
# (from it) and 4 (to it), the monitor 5 and 6; all it says is kept.
start() {
	mkfifo "$work"/{serial,monitor}.{in,out}
	: >"$output/serial"
	"$qemu" -L "$data" -L /usr/share/seabios \
		-accel kvm -cpu host -M pc -m 256 -nodefaults -no-user-config -no-reboot -display "$display" -vga none \
		-chardev "pipe,id=serial,path=$work/serial" -serial chardev:serial \
		-chardev "pipe,id=monitor,path=$work/monitor" -monitor chardev:monitor \
		-device "$device${2:+,$2}" "${@:3}" \
		-kernel "$cache/linux/$release/boot/vmlinuz-$release" -initrd "$image" \
		-append "console=ttyS0 loglevel=2 panic=-1 iomem=relaxed ${parameters:+$parameters }guest_command=$(printf '%s' "$1" | base64 -w0)" \
		${traced:+-trace "$traced" -D "$output/trace"} >"$output/qemu" 2>&1 &
	emulator=$!
	# Both ends, so that no open waits for QEMU and none fails if it ends.
	exec 3<>"$work/serial.out" 4<>"$work/serial.in" 5<>"$work/monitor.out" 6<>"$work/monitor.in"
	# Ends the reading of a line every now and then: when bash's own timeout does so
	# the newline may be read and lost.
	while sleep 5; do printf '\a\n'; done >&3 2>/dev/null &
	ticker=$!
}

# QEMU has ended.
close_lines() {
	emulator=
	kill "$ticker" 2>/dev/null || true
	wait "$ticker" 2>/dev/null || true
	ticker=
	exec 3<&- 4<&- 5<&- 6<&-
	rm -f "$work"/{serial,monitor}.{in,out}
}

# wait_for TEXT: read the guest's lines until one has TEXT, if none has had it;
# 1 if the guest or QEMU ends or says nothing for two minutes.
wait_for() {
	local line start='' silent=0
	! grep -q -- "$1" "$output/serial" || return 0
	while [ "$silent" -lt 24 ]; do
		IFS= read -r line <&3
		if [[ $line == *$'\a' ]]; then
			line=${line%$'\a'}
			[ -z "$line" ] || silent=0
			start+=$line silent=$((silent + 1))
			kill -0 "$emulator" 2>/dev/null || return 1
			continue
		fi
		line=${start}${line%$'\r'} start='' silent=0
		printf '%s\n' "$line" >>"$output/serial"
		[[ ! $line =~ $1 ]] || return 0
		[[ $line != 'guest: exit '* ]] || return 1
	done
	return 1
}

# ended STEP [STATUS]: wait until the guest says how a step ended; succeed if
# that is STATUS (0).
ended() {
	wait_for "^$1 ended: " && grep -q "^$1 ended: ${2:-0}$" "$output/serial"
}

# Give the guest the line that it waits for.
go_on() {
	printf '\n' >&4
}

# monitor COMMAND: have QEMU run it, return when it is done. What it printed is in monitor_said.
monitor() {
	printf '%s\n' "$1" >&6
	# The echo of the command, what it prints, and the next prompt: "(qemu)".
	while IFS= read -r -d ')' -t 60 monitor_said <&5; do
		[[ $monitor_said != *"$1"* ]] || return 0
	done
	return 1
}

stop() {
	[ -n "$emulator" ] || return 0
	kill "$emulator" 2>/dev/null || true
	wait "$emulator" 2>/dev/null || true
	close_lines
	[ ! -e "$failing" ] || printf '0\n' >"$failing"
}

# Of QEMU's so far, if kvm_set_user_memory is traced.
memslot_changes() {
	grep -c kvm_set_user_memory "$output/trace" || true
}

said() {
	grep -- "$1" "$output/serial" | tail -n 1
}

# A page's DMA by QEMU's edu device, in the guest: dma SOURCE TARGET 1, to its own memory at
# 0x40000, or 3, from it. The window and its address.
edu_driver='
edu=$(grep -l 0x11e8 /sys/bus/pci/devices/*/device)
edu=${edu%/device}
echo 1 >$edu/enable
printf "\006" | dd of=$edu/config bs=1 seek=4 conv=notrunc
read registers rest <$edu/resource
window=$(sed -n "5s/ .*//p" /sys/class/drm/card0/device/resource)
set_register() { devmem $((registers + $1)) 64 $2; }
dma() {
	set_register 0x80 $1
	set_register 0x88 $2
	set_register 0x90 4096
	set_register 0x98 $3
	while [ $(($(devmem $((registers + 0x98)) 64) & 1)) = 1 ]; do :; done
}
'

# What the guest and QEMU said last.
ktap_on_failure() {
	tail -n 12 "$output/serial" "$output/qemu" | sed 's/^/# /'
}
