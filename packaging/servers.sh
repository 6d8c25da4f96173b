#!/usr/bin/env bash
# servers.sh [DIR] [next]: Prometheus and Alertmanager below DIR (default target/servers), for tests, demo and run-stack.
#
#   DIR/bin/{prometheus,promtool,alertmanager,amtool}        Debian 12's: Prometheus 2.42, Alertmanager 0.25
#   DIR/next/bin/{prometheus,promtool,alertmanager,amtool}   with `next`: Prometheus 3 of a later suite, beside them
#
# The packages are downloaded and unpacked, never installed: nothing is started, no user is made, no file outside DIR
# changes but apt's own package lists, where they were missing. What is already there is kept, so a second run is instant;
# to fetch anew, remove DIR. The binaries need libc6 >= 2.34 and nothing else.
set -euo pipefail

readonly NEXT_SUITE=forky   # the first suite with Prometheus 3 (trixie has 2.53)

say() { printf 'servers: %s\n' "$*" >&2; }
die() { printf 'servers: error: %s\n' "$1" >&2; shift; for line in "$@"; do printf '  %s\n' "$line" >&2; done; exit 1; }

# shellcheck source=packaging/suite.sh
. "$(dirname "$0")/suite.sh"

# Unpacks packages $3... of suite $2 into $1/pkg. The machine's own lists serve where it runs that suite.
unpack() {
  local into=$1 suite=$2; shift 2
  local work log deb apt=()
  work=$(mktemp -d "$into/.download.XXXXXX"); log=$work/apt.log
  # shellcheck disable=SC2064  # expand now: the variable is local
  trap "rm -rf '$work'" EXIT
  [ "$codename" = "$suite" ] || private_apt "$work/apt" "$suite"
  apt+=(-q -o APT::Sandbox::User=root -o Acquire::Retries=2 -o Acquire::http::Timeout=30)
  mkdir "$work/debs"
  say "fetching $1 and $(($# - 1)) more packages of Debian $suite"
  if [ -d "$work/apt" ] || ! (cd "$work/debs" && apt-get "${apt[@]}" download "$@") >"$log" 2>&1; then
    say "reading the package lists of $suite first"
    apt-get "${apt[@]}" update >"$log" 2>&1 || true  # the download that follows tells
    (cd "$work/debs" && apt-get "${apt[@]}" download "$@") >>"$log" 2>&1 ||
      die "cannot download $* of Debian $suite: is the network up, and the mirror reachable? apt says:" \
          "$(grep '^E:' "$log" | head -n 1)"
  fi
  mkdir "$work/pkg"
  for deb in "$work"/debs/*.deb; do
    dpkg -x "$deb" "$work/pkg" || die "$(basename "$deb") does not unpack" "is the disk full? look at: df $into"
  done
  rm -rf "$into/pkg" && mv "$work/pkg" "$into/pkg"
  rm -rf "$work"; trap - EXIT
}

# Debian's Alertmanager reads its templates, and Debian's Prometheus its pages, from $3 below /usr/share; the first does not
# even start without them. A copy of program $2 that looks on file descriptor 9 instead (a path of the same length, so nothing
# else moves) runs from any directory, needs no privilege, and touches nothing of the host's.
relocate() {
  local base=$1 program=$2 at=$3 name=${2#prometheus-}
  local here=/proc/self/fd/9
  while [ ${#here} -lt ${#at} ]; do here+=/; done
  LC_ALL=C sed "s|$at|$here|g" "$base/pkg/usr/bin/$program" >"$base/pkg/$name"
  chmod 755 "$base/pkg/$name"
  rm -f "$base/pkg/usr/bin/$program" "$base/bin/$name"
  cat >"$base/bin/$name" <<EOF
#!/bin/sh
# $program, its files given as descriptor 9 (packaging/servers.sh says why).
pkg=\$(dirname "\$(readlink -f "\$0")")/../pkg
exec "\$pkg/$name" "\$@" 9<"\$pkg$at"
EOF
  chmod 755 "$base/bin/$name"
}

# Each program says its version ($2: an extended regular expression Prometheus must match).
works() {
  local base=$1 version=$2 program
  for program in prometheus promtool alertmanager amtool; do
    [ -x "$base/bin/$program" ] && "$base/bin/$program" --version >/dev/null 2>&1 || return 1
  done
  "$base/bin/prometheus" --version 2>&1 | grep -Eq "^prometheus, version $version"
}

# Makes $1/bin from suite $2 with Prometheus of version $3.
servers() {
  local base=$1 suite=$2 version=$3 program; shift 3
  if works "$base" "$version"; then return; fi
  mkdir -p "$base/bin"
  unpack "$base" "$suite" "$@"
  for program in promtool amtool; do
    ln -sfn "../pkg/usr/bin/$program" "$base/bin/$program"
  done
  relocate "$base" prometheus /usr/share/prometheus/web
  relocate "$base" prometheus-alertmanager /usr/share/prometheus/alertmanager
  works "$base" "$version" && return
  die "what was unpacked below $base does not run, or is not Prometheus $version" \
      "prometheus says: $("$base/bin/prometheus" --version 2>&1 | head -n 1)" \
      "the binaries need libc6 >= 2.34: this machine has $(dpkg-query -W -f '${Version}' libc6 2>/dev/null || echo none)"
}

dir=target/servers next=
for argument in "$@"; do
  case $argument in
    next) next=1 ;;
    -h | --help) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"; exit ;;
    -*) die "unknown option '$argument'" "usage: packaging/servers.sh [DIR] [next]" ;;
    *) dir=$argument ;;
  esac
done
type apt-get dpkg >/dev/null 2>&1 || die "this needs apt-get and dpkg: it is for Debian and its kin"
# shellcheck source=/dev/null
codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
mkdir -p "$dir"; dir=$(cd "$dir" && pwd)
exec 8>"$dir/.lock"; flock 8   # two at once: the second finds what the first fetched

# What the pages of Prometheus 2 are made of: its package asks for these.
pages=(fonts-glyphicons-halflings libjs-bootstrap4 libjs-d3 libjs-eonasdan-bootstrap-datetimepicker libjs-jquery libjs-jquery-hotkeys
       libjs-moment libjs-moment-timezone libjs-mustache libjs-popper.js libjs-rickshaw)
servers "$dir" bookworm '2\.42\.' prometheus prometheus-alertmanager "${pages[@]}"
[ -z "$next" ] || servers "$dir/next" "$NEXT_SUITE" '3\.' prometheus promtool prometheus-alertmanager

for base in "$dir" ${next:+"$dir/next"}; do
  for program in prometheus promtool alertmanager amtool; do echo "$base/bin/$program"; done
done
