# vm.sh: a Debian 12 on a kernel of Debian's, in a virtual machine of 512 MB. Sourced by try-kernels.sh.
# shellcheck shell=bash
#
# The machine has a disk, two serial lines and no network card: what hosts it has on its wires it makes itself (in-vm/). The first line
# is its console, the second is what its checks print. The disk is never written to: each boot begins with the same one.

readonly memory=512
# How the machine's processors come about, and how long a scene may take, boots included. Two that are emulated on a busy host were seen to
# wait for each other for ever at a boot.
accel=(-accel tcg -cpu qemu64 -smp 1) limit=1200

# Unpacks the kernel of suite $1 into $2: the newest whose package's name matches $3 (linux-image-VERSION-amd64).
kernel() {
  local from=$1 into=$2 name=$3 work log image deb release apt=()
  [ ! -e "$into/.complete" ] || return 0
  rm -rf "$into"; mkdir -p "$into/debs"
  work=$into/apt log=$into/apt.log
  private_apt "$work" "$from"
  apt+=(-q -o APT::Sandbox::User=root -o Acquire::Retries=2)
  echo "try-kernels: fetching a kernel of Debian $from" >&2
  apt-get "${apt[@]}" update >"$log" 2>&1 || { tail -3 "$log" >&2; return 1; }
  image=$(apt-cache "${apt[@]}" pkgnames linux-image- | grep -Ex "$name" | sort -V | tail -1)
  [ -n "$image" ] || { echo "try-kernels: no package of $from is called $name" >&2; return 1; }
  # Since 7.x what was one package is several.
  # shellcheck disable=SC2046  # one word a package
  (cd "$into/debs" && apt-get "${apt[@]}" download "$image" \
    $(apt-cache "${apt[@]}" depends "$image" | awk '/^ *Depends: linux-(base|binary|modules)-[0-9]/ { print $2 }')) >>"$log" 2>&1 ||
    { tail -3 "$log" >&2; return 1; }
  # Of the drivers, those that such a machine has.
  for deb in "$into"/debs/*.deb; do
    dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$into" --wildcards --no-anchored \
      --exclude='drivers/[ac-mo-uw-z]*' --exclude='drivers/net/*/*' --exclude=kernel/sound --exclude="arch/*/kvm" --exclude='kernel/fs/[b-df-iln-z]*' ./boot ./lib ./usr/lib 2>/dev/null || true
  done
  [ ! -d "$into/lib" ] || { mkdir -p "$into/usr/lib"; mv "$into"/lib/* "$into/usr/lib/"; }
  release=$(basename "$into"/usr/lib/modules/*)
  echo "$release" >"$into/release"
  # Since 7.x they lie beside the modules.
  mkdir -p "$into/boot"
  for image in vmlinuz config; do
    [ -e "$into/boot/$image-$release" ] || mv "$into/usr/lib/modules/$release/$image" "$into/boot/$image-$release" || return 1
  done
  rm -rf "$work" "$into/debs"
  touch "$into/.complete"
}

# Makes $4 the disk, and $4.initrd what is needed before it can be read, of the root $1, the kernel in $2, and the packages in $3.
disk() {
  local base=$1 kernel=$2 debs=$3 to=$4 root=$4.root release
  release=$(cat "$kernel/release")
  rm -rf "$root" "$to" "$to.initrd"
  cp -a --reflink=auto "$base" "$root"
  cp -a "$kernel/usr/lib/modules" "$root/usr/lib/"
  mkdir -p "$root/root/debs"
  cp "$debs"/*.deb "$root/root/debs/"
  cp -r packaging/in-vm "$root/root/"
  cp packaging/checks.sh packaging/looks.sh "$root/root/in-vm/"
  cp packaging/in-vm/in-vm.service "$root/etc/systemd/system/"
  ln -s /etc/systemd/system/in-vm.service "$root/etc/systemd/system/multi-user.target.wants/"
  echo vm >"$root/etc/hostname"
  echo 127.0.0.1 localhost vm >"$root/etc/hosts"
  cp "$kernel/boot/config-$release" "$root/boot/"
  printf 'virtio_pci\nvirtio_blk\next4\n' >"$root/etc/initramfs-tools/modules"
  sed -i 's/^MODULES=.*/MODULES=list/; s/^COMPRESS=.*/COMPRESS=gzip/' "$root/etc/initramfs-tools/initramfs.conf"
  chroot "$root" depmod "$release"
  chroot "$root" mkinitramfs -o /initrd "$release" >"$to.log" 2>&1 || { tail -5 "$to.log" >&2; return 1; }
  mv "$root/initrd" "$to.initrd"
  truncate -s 2G "$to"
  mke2fs -q -t ext4 -d "$root" "$to"
  rm -rf "$root"
}

# By KVM where a kernel gets as far as its first word by it: there are hosts whose /dev/kvm runs only guests made for it.
by_kvm() {
  local kernel=$1 word=$1/kvm
  [ -w /dev/kvm ] || return 1
  rm -f "$word"
  timeout 15 qemu-system-x86_64 -accel kvm -cpu host -m "$memory" -nodefaults -display none -no-reboot -kernel "$(echo "$kernel"/boot/vmlinuz-*)" \
    -append 'console=ttyS0 panic=-1 edd=off' -serial "file:$word" </dev/null >/dev/null 2>&1 || true
  grep -q 'Linux version' "$word" || return 1
  accel=(-accel kvm -cpu host -smp 2) limit=400
}

# Boots disk $1 with the kernel in $2 and has it play scene $3; what its checks print stands in $4, its console in $4.console.
play() {
  local disk=$1 kernel=$2 scene=$3 said=$4 more=${5:-}
  TMPDIR=$(dirname "$said") timeout --kill-after=5 "$limit" qemu-system-x86_64 "${accel[@]}" -m "$memory" -nodefaults -display none \
    -kernel "$(echo "$kernel"/boot/vmlinuz-*)" -initrd "$disk.initrd" \
    -append "root=/dev/vda rw console=ttyS0 panic=0 mitigations=off systemd.show_status=0 scene=$scene $more" \
    -drive "file=$disk,format=raw,if=virtio,snapshot=on" -device virtio-rng-pci \
    -serial "file:$said.console" -serial "file:$said" </dev/null >"$said.qemu" 2>&1
}
