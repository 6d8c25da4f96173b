#!/usr/bin/env bash
# check-units.sh: what systemd and AppArmor say of our units and profiles. Nothing is started or loaded; systemd need not run here.
# shellcheck disable=SC2317  # functions are called through check()
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2
units=packaging/systemd
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
# shellcheck source=packaging/checks.sh
. packaging/checks.sh

exposure() { systemd-analyze security --offline=true --no-pager --threshold=15 "$1"; }

# As `systemd-analyze verify`, which wants every program and manual page at its place: with those of a root in which they are. It writes what
# it finds wrong, and some of that it calls no failure.
verify() {
  local said
  said=$(systemd-analyze verify --root="$root" --man=no "$@" 2>&1) || { echo "$said"; return 1; }
  [ -z "$said" ] || { echo "$said"; return 1; }
}

# The check must be able to fail.
refuses() { ! "$@" >/dev/null 2>&1; }

mkdir -p "$root"/usr/{bin,lib/systemd/system} "$root/etc/systemd/system"
ln -s usr/bin "$root/bin"; ln -s usr/lib "$root/lib"
for program in conntrack-exporter conntrack-actioner kill; do install -m 755 /dev/null "$root/usr/bin/$program"; done
cp "$units"/*.service "$units"/*.socket "$root/usr/lib/systemd/system/"
# The targets that every unit hangs on.
cp /lib/systemd/system/{sysinit,basic,shutdown,sockets,multi-user,network,network-pre,local-fs,local-fs-pre,paths,timers,slices,swap,cryptsetup,cryptsetup-pre,veritysetup,veritysetup-pre,integritysetup,integritysetup-pre,umount,final,initrd-switch-root,initrd-root-fs,initrd-root-device,initrd-fs,initrd-usr-fs,initrd}.target \
  "$root/usr/lib/systemd/system/" 2>/dev/null
for unit in conntrack-exporter.service conntrack-actioner.service; do
  check "systemd-analyze security $unit ≤ 1.5" exposure "$units/$unit"
  grep -v '^IPAddressDeny=' "$units/$unit" >"$root/loose.service"
  sed -i 's/^CapabilityBoundingSet=.*/CapabilityBoundingSet=~/' "$root/loose.service"
  check "and with all capabilities it is not" refuses exposure "$root/loose.service"
done
rm "$root/loose.service"
check "systemd-analyze verify" verify conntrack-exporter.service conntrack-exporter.socket conntrack-actioner.service conntrack-actioner.socket conntrack-guard-sets.service
printf '[Service]\nExecStart=/usr/bin/no-such-program\nTpye=exec\n' >"$root/usr/lib/systemd/system/wrong.service"
check "and of a wrong unit it says so" refuses verify wrong.service
check "tmpfiles.d" systemd-tmpfiles --root="$root" --create "$PWD/$units/conntrack-guard.tmpfiles"
for profile in packaging/apparmor/*; do
  # The path is what says whom it confines; the kernel need not have AppArmor.
  check "apparmor_parser $profile" apparmor_parser --skip-kernel-load --skip-cache --quiet "$profile"
done
exit "$failed"
