#!/usr/bin/env bash
# try-kernels.sh DEBS [KERNEL [SCENE...]]: installs the packages in DEBS on a Debian 12 in a virtual machine of 512 MB, on each kernel that
# Debian's packages hold, and tries there what they are for; a line a check. KERNEL: 5.10, 6.1 … Exit 1 when any check failed. Root.
set -euo pipefail
cd "$(dirname "$0")/.."
die() { printf 'try-kernels: %s\n' "$@" >&2; exit 1; }
# shellcheck source=packaging/nspawn.sh
. packaging/nspawn.sh
# shellcheck source=packaging/suite.sh
. packaging/suite.sh
# shellcheck source=packaging/vm.sh
. packaging/vm.sh
# shellcheck source=/dev/null
codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")

debs=$1
work=$PWD/target/try-kernels
scenes=(guard apparmor full no_ipset no_conntrack legacy)
failed=0 ran=0

# Each kernel, the suite that has it, and its package: the newest of that name.
readonly kernels='
5.10 bullseye           linux-image-5\.10\.[0-9-]*-amd64
6.1  bookworm           linux-image-6\.1\.[0-9-]*-amd64
6.12 bookworm-backports linux-image-6\.12\.[0-9.]*\+deb12-amd64
6.18 trixie-backports   linux-image-6\.18\.[0-9.]*\+deb13-amd64
7    trixie-backports   linux-image-7\.[0-9.]*\+deb13-amd64
'

# Plays scene $2 on kernel $1 and shows what its checks say.
try() {
  local kernel=$work/$1 scene=$2 said=$work/$1.$2
  printf '\n%s, %s\n' "$(cat "$kernel/release")" "$scene"
  rm -f "$said"
  play "$work/$1.disk" "$kernel" "$scene" "$said" || true
  sed -n '/^end /!p' "$said" | sed 's/^/  /'
  ran=$((ran + $(grep -c '^ok ' "$said" || true)))
  failed=$((failed + $(grep -c '^FAILED ' "$said" || true)))
  if ! grep -q '^end ' "$said"; then
    failed=$((failed + 1))
    echo "  FAILED  the machine did not come to the end; its console ($said.console):"
    tail -15 "$said.console" | sed 's/^/          | /'
  fi
}

# What each kernel said to each check, in Markdown; of all kernels whose scenes lie in $work.
table() {
  local name names=()
  while read -r name _; do
    [ -z "$name" ] || [ ! -e "$work/$name/release" ] || ! ls "$work/$name".*[a-z] >/dev/null 2>&1 || names+=("$name")
  done <<<"$kernels"
  for scene in "${scenes[@]}"; do
    for name in "${names[@]}"; do
      [ ! -e "$work/$name.$scene" ] || awk -v name="$name" -v scene="$scene" '/^(ok|FAILED|said) / { word = $1; $1 = ""; print name "\t" scene "\t" word "\t" substr($0, 2) }' "$work/$name.$scene"
    done
  done | awk -F '\t' -v names="${names[*]}" '
    { key = $2 "\t" $4
      # What is measured differs from kernel to kernel; what it is of stands before the figure.
      if ($3 == "said") { key = $2 "\t" (match($4, /: |[0-9]/) ? substr($4, 1, RSTART - 1) : $4); $3 = substr($4, RSTART); sub(/^: /, "", $3) }
      if (!(key in seen)) { seen[key] = 1; order[++rows] = key }
      cell[key, $1] = $3 }
    END {
      split(names, kernel, " "); line = "| scene | check |"; rule = "|---|---|"
      for (k = 1; k in kernel; k++) { line = line " " kernel[k] " |"; rule = rule "---|" }
      print line; print rule
      for (row = 1; row <= rows; row++) {
        split(order[row], part, "\t"); line = "| " part[1] " | " part[2] " |"
        for (k = 1; k in kernel; k++) line = line " " ((order[row], kernel[k]) in cell ? cell[order[row], kernel[k]] : "–") " |"
        print line
      }
    }' >"$work/table.md"
}

mkdir -p "$work"
base_root "$work/base" apparmor initramfs-tools udev zstd
while read -r name from package; do
  [ -n "$name" ] || continue
  [ -z "${2:-}" ] || [ "$2" = "$name" ] || continue
  kernel "$from" "$work/$name" "$package"
  [ "$ran$failed" != 00 ] || by_kvm "$work/$name" || echo "try-kernels: KVM runs no ordinary guest here: all is emulated, and slow" >&2
  disk "$work/base" "$work/$name" "$debs" "$work/$name.disk"
  for scene in "${@:3}"; do try "$name" "$scene"; done
  [ -n "${3:-}" ] || for scene in "${scenes[@]}"; do try "$name" "$scene"; done
  [ -n "${KEEP:-}" ] || rm -rf "$work/$name.disk" "$work/$name.disk.initrd"
done <<<"$kernels"

table
printf '\n'
[ "$failed" = 0 ] || { echo "try-kernels: $failed checks FAILED (consoles and what was said: $work)"; exit 1; }
echo "try-kernels: all $ran checks passed; as a table: $work/table.md"
