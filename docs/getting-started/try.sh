#!/usr/bin/env bash
# try.sh PAGE.md...: follows a page to the letter: its ```sh blocks, in order, on a clean Debian 12 in a network namespace of its own.
#
#   PACKAGES   directory with our .deb files, for the page's `apt-get install ./conntrack-*.deb`. Without it that line becomes what the packages
#              would do: the programs of PROGRAMS (default target/debug) in /usr/bin, the packaged policy, iptables and ipset.
#
# Blocks that begin with apt-get have the host's network; all others have a namespace without any. Nothing of the host is touched: root, mounts,
# processes and network are the namespaces', and end with the last block. No systemd runs there: `systemctl` is a stand-in of thirty lines that
# starts a unit's program with its ARGS of /etc/default, and checks the policy before it sends SIGHUP, as our unit does.
set -euo pipefail
cd "$(dirname "$0")/../.."

clean=$PWD/target/clean base=$PWD/target/clean/debian12
say() { printf '\ntry: %s\n' "$*"; }

prepare() {
  packaging/need.sh debootstrap
  [ -e "$base/.whole" ] || {
    rm -rf "$base"
    mkdir -p "$clean"
    debootstrap --variant=minbase --include=ca-certificates bookworm "$base" http://deb.debian.org/debian >"$clean/log"
    touch "$base/.whole"
  }
}

stand_in() {
  cat >"$1/usr/bin/systemctl" <<'END'
#!/bin/bash
# A stand-in for systemctl in try.sh: enable --now, disable --now, start, stop, restart, reload of the units of the pages.
set -eu
verb=$1; shift
file() { local unit=$1; echo "/run/stand-in.$unit"; }
alive() { [ -s "$(file "$1")" ] && kill -0 "$(cat "$(file "$1")")" 2>/dev/null; }
begin() {
  local ARGS='' POLICY=/etc/conntrack-guard/policy.yaml unit=$1
  alive "$unit" && return
  # shellcheck source=/dev/null
  [ ! -e "/etc/default/$unit" ] || . "/etc/default/$unit"
  [ "$unit" != prometheus-alertmanager ] || ARGS="--storage.path=/var/lib/prometheus/alertmanager $ARGS"
  [ "$unit" != prometheus ] || ARGS="--storage.tsdb.path=/var/lib/prometheus/metrics2 $ARGS"
  # shellcheck disable=SC2086
  setsid "/usr/bin/$unit" $ARGS >>"/var/log/$unit.log" 2>&1 </dev/null &
  echo $! >"$(file "$unit")"
  case $unit in conntrack-*) for _ in $(seq 100); do grep -q 'message="listening\|listening' "/var/log/$unit.log" && return; alive "$unit" || { cat "/var/log/$unit.log"; exit 1; }; sleep 0.1; done ;; esac
}
end() { alive "$1" || return 0; kill "$(cat "$(file "$1")")"; while alive "$1"; do sleep 0.1; done; }
for unit in "$@"; do
  case $verb:$unit in
    *:--now) ;;
    enable:* | start:*) begin "$unit" ;;
    disable:* | stop:*) end "$unit" ;;
    restart:*) end "$unit"; begin "$unit" ;;
    reload:conntrack-actioner) conntrack-actioner check-policy /etc/conntrack-guard/policy.yaml >/dev/null; kill -HUP "$(cat "$(file "$unit")")"; sleep 1 ;;
    reload:*) kill -HUP "$(cat "$(file "$unit")")" ;;
    *) echo "stand-in: $verb $unit?" >&2; exit 1 ;;
  esac
done
END
  chmod 755 "$1/usr/bin/systemctl"
}

# What the page asks apt-get to install of ours, where there are no packages.
by_hand() {
  install -m 755 "${PROGRAMS:-target/debug}"/conntrack-{exporter,actioner} "$1/usr/bin/"
  install -D -m 644 packaging/policy.yaml "$1/etc/conntrack-guard/policy.yaml"
}

# Runs within the namespaces; descriptor 7 is the host's network.
follow() {
  local page=$1 root=$2 block number=0
  # Alertmanager wants a private address of its own, as every host has one.
  ip link set lo up; ip link add lan type veth peer name far; ip address add 192.168.77.2/24 dev lan; ip link set far up; ip link set lan up; ip route add default dev lan
  mount --rbind /dev "$root/dev"; mount -t proc proc "$root/proc"; mount -t sysfs sysfs "$root/sys"
  cp /etc/resolv.conf "$root/etc/resolv.conf"
  while IFS= read -r -d $'\x1e' block; do
    number=$((number + 1))
    say "$page, block $number"
    # shellcheck disable=SC2001
    sed 's/^/  $ /' <<<"$block"
    if [[ $block == apt-get* ]]; then
      [ -n "${PACKAGES:-}" ] || block=${block//.\/conntrack-exporter_*.deb .\/conntrack-actioner_*.deb/iptables ipset}
      nsenter --net=/proc/self/fd/7 chroot "$root" /bin/bash -euc "cd /root; export DEBIAN_FRONTEND=noninteractive HOME=/root; $block" >"$clean/apt.log" 2>&1 || { tail -5 "$clean/apt.log"; exit 1; }
    else
      chroot "$root" /bin/bash -euo pipefail -c "cd /root; export HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin; $block"
    fi
  done < <(awk '/^```sh$/ { inside = 1; next } /^```$/ && inside { inside = 0; printf "%c", 30; next } inside' "$page")
  [ "$number" -gt 0 ]
}

if [ "${1:-}" = --inside ]; then
  follow "$2" "$3"
  exit
fi
[ $# -gt 0 ] || { sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"; exit 2; }
prepare
for page in "$@"; do
  root=$clean/$(basename "$page" .md)
  rm -rf --one-file-system "$root"
  cp -a "$base" "$root"
  printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"; chmod 755 "$root/usr/sbin/policy-rc.d"
  cp -r alerts "$root/root/"
  if [ -n "${PACKAGES:-}" ]; then cp "$PACKAGES"/*.deb "$root/root/"; else by_hand "$root"; fi
  stand_in "$root"
  unshare --mount --propagation private --pid --fork --kill-child --net "$0" --inside "$page" "$root" 7</proc/self/ns/net
  rm -rf --one-file-system "$root"
  say "$page: followed to its end"
done
