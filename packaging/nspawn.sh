# nspawn.sh: a Debian 12 that boots by its own systemd in namespaces of its own, and a second host on a wire to it. Sourced by package-test.sh; its root also by vm.sh.
# shellcheck shell=bash
#
# Nothing of this machine's network is touched: the wire is made inside the two network namespaces. Its PID 1 need not be systemd, and its
# cgroups may be of either version: systemd-nspawn gets a cgroup of its own in version 2's hierarchy, without controllers where version 1
# holds them (MemoryMax= and TasksMax= then bind nobody; all else is as on a host).

# shellcheck source=packaging/suite.sh
. packaging/suite.sh
readonly suite=bookworm here=198.51.100.1 there=198.51.100.7
spawned='' outside=''

# The root $1 that is copied for each run: Debian's, with what a host that saves its firewall has, and the packages $2...
base_root() {
  local base=$1 mirror more; shift
  more=$(printf ',%s' "$@")
  [ ! -e "$base/.complete" ] || return 0
  mirror=$(mirror "$suite")
  echo "$(basename "$0" .sh): debootstrap of Debian 12 below $base (once; some 120 MB are fetched)" >&2
  rm -rf "$base"
  debootstrap --variant=minbase \
    --include=systemd,systemd-sysv,dbus,iproute2,iptables,ipset,nftables,netfilter-persistent,iptables-persistent,procps,kmod"${more%,}" \
    "$suite" "$base" "${mirror:-http://deb.debian.org/debian/}" >"$base.log" 2>&1 || { tail -5 "$base.log" >&2; return 1; }
  rm -rf "$base"/var/cache/apt/archives/*.deb "$base"/var/lib/apt/lists/*
  touch "$base/.complete"
}

# Boots $1.
boot() {
  unshare --mount --cgroup bash -s "$1" "$$" >"$1.console" 2>&1 <<'INNER' &
    set -e
    mount --make-rprivate /
    # systemd-nspawn clears up behind it at a reboot, and refuses where /run is on a disk.
    mount -t tmpfs -o mode=755 tmpfs /run
    if [ "$(stat -f -c %T /sys/fs/cgroup)" != cgroup2fs ]; then
      umount -R /sys/fs/cgroup
      mount -t cgroup2 cgroup2 /sys/fs/cgroup
      mkdir -p "/sys/fs/cgroup/package-test.$2"
      echo $$ >"/sys/fs/cgroup/package-test.$2/cgroup.procs"
    fi
    # Its own filter knows no Landlock, which a host has.
    exec systemd-nspawn --quiet --register=no --keep-unit --private-network --kill-signal=SIGRTMIN+3 --directory="$1" --machine=package-test \
      --system-call-filter='landlock_create_ruleset landlock_add_rule landlock_restrict_self' --console=pipe --boot systemd.log_target=console systemd.show_status=0 </dev/null
INNER
  spawned=$!
  wait_booted "$1"
}

# Waits for the systemd inside to have started everything.
wait_booted() {
  local tries=0 child
  leader=''
  while :; do
    kill -0 "$spawned" 2>/dev/null || { tail -20 "$1.console" >&2; return 1; }
    for child in $(pgrep -P "$spawned"); do
      [ "$(cat "/proc/$child/comm" 2>/dev/null)" = systemd ] && leader=$child
    done
    [ -z "$leader" ] || inside systemctl is-system-running --wait >"$1.running" 2>/dev/null || true
    case $(cat "$1.running" 2>/dev/null) in
      running | degraded) rm "$1.running"; return ;;
    esac
    tries=$((tries + 1))
    [ "$tries" -lt 300 ] || { echo "package-test: the machine has not come up after a minute; its console: $1.console" >&2; return 1; }
    sleep 0.2
  done
}

# Runs a command on the booted machine.
inside() { nsenter --target "$leader" --all -- env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 "$@"; }

# As a power cut and a start are to the kernel's firewall: sets, rules and table are new with the network namespace.
reboot_machine() {
  inside systemctl reboot 2>/dev/null || true
  # With --keep-unit a reboot ends systemd-nspawn, with 133: whoever started it is to start it again.
  wait "$spawned" || true
  boot "$1"
  wire
}

# A second host, and the wire. Its end of it is a public address by the policy's measure: private ones are never banned.
wire() {
  if [ -z "$outside" ]; then
    unshare --net sleep infinity &
    outside=$!
    # Before it has its own namespace, it has ours: nothing may be made there.
    while [ "$(readlink "/proc/$outside/ns/net")" = "$(readlink /proc/self/ns/net)" ]; do sleep 0.05; done
    from_outside ip link set lo up
  fi
  nsenter --target "$leader" --net -- ip link add wire type veth peer name wire netns "$outside"
  nsenter --target "$leader" --net -- ip address add "$here/24" dev wire
  nsenter --target "$leader" --net -- ip link set wire up
  from_outside ip address add "$there/24" dev wire
  from_outside ip link set wire up
}

from_outside() { nsenter --target "$outside" --net -- "$@"; }

# Whether the second host can open a TCP connection to the first's port $1: a banned one's SYN is lost.
reaches() { from_outside timeout 2 bash -c "exec 3<>/dev/tcp/$here/$1" 2>/dev/null; }

shut_down() {
  local pid
  for pid in "$outside" "$spawned"; do
    [ -z "$pid" ] || kill "$pid" 2>/dev/null || true
  done
  [ -z "$spawned" ] || wait "$spawned" 2>/dev/null || true
  find /sys/fs/cgroup/unified/package-test.$$ -depth -type d -exec rmdir {} \; 2>/dev/null || true
}
