#!/usr/bin/env bash
# neighbours.sh: what `make bench` measures beside us, below target/servers/neighbours: Debian's node_exporter and fail2ban. Downloaded and
# unpacked, never installed: nothing is started. What cannot be had is said, and left out of the report.
set -euo pipefail

into=target/servers/neighbours
[ -x $into/usr/bin/prometheus-node-exporter ] && [ -d $into/usr/lib/python3/dist-packages/fail2ban ] && exit 0
mkdir -p $into
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
for package in prometheus-node-exporter fail2ban; do
  echo "neighbours: fetching $package" >&2
  apt-get -q -o APT::Sandbox::User=root download "$package" >&2 ||
    { apt-get -q update >&2 && apt-get -q -o APT::Sandbox::User=root download "$package" >&2; } ||
    { echo "neighbours: $package cannot be had: the report goes without it" >&2; continue; }
  dpkg -x "$package"_*.deb "$OLDPWD/$into"
done
