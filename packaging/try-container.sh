#!/usr/bin/env bash
# try-container.sh: builds packaging/Dockerfile to the letter and runs both programs of the image by podman, as the Dockerfile says, in a network
# namespace made for it instead of the host's, and says what came of it, a line a check. Root. Exit 1 when any check failed.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$PWD/target/try-container
# shellcheck source=packaging/headed-checks.sh
. packaging/headed-checks.sh
# shellcheck source=packaging/looks.sh
. packaging/looks.sh
# shellcheck source=packaging/container-bases.sh
. packaging/container-bases.sh

readonly here=198.51.100.1 there=198.51.100.7 image=conntrack-guard
name=conntrack-guard-try-$$

# Its images and containers are its own: nothing of this machine's podman is seen or changed. Engines raise limits (RLIMIT_NPROC, RLIMIT_NOFILE), which in a sandbox
# not even root may, so the runtime is told of none. runc, for crun refuses cgroups of both versions side by side.
configure() {
  mkdir -p "$work/run" "$work/policy" "$work/state"
  cat >"$work/runtime" <<'RUNTIME'
#!/bin/sh
for argument in "$@"; do
  for spec in "$argument" "$argument/config.json"; do
    if [ -f "$spec" ] && [ "$(head -c 1 "$spec")" = '{' ]; then jq -c 'del(.process.rlimits, .rlimits)' "$spec" >"$spec.new" && mv "$spec.new" "$spec"; fi
  done
done
exec runc "$@"
RUNTIME
  chmod 755 "$work/runtime"
  cat >"$work/containers.conf" <<CONF
[network]
network_backend = "netavark"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "unlimited"
[engine.runtimes]
unlimited = ["$work/runtime"]
CONF
}
engine() { CONTAINERS_CONF=$work/containers.conf podman --root "$work/storage" --runroot "$work/run" "$@"; }

inside() { ip netns exec "$name" "$@"; }
from_outside() { ip netns exec "$name-outside" "$@"; }
reaches() { from_outside timeout 2 bash -c "exec 3<>/dev/tcp/$here/$1" 2>/dev/null; }
ready() { local tries=0; until get "$1" /-/ready 2>/dev/null | grep -q '200 OK'; do tries=$((tries + 1)); [ "$tries" -lt 50 ] || { engine logs "$2"; return 1; }; sleep 0.2; done; }
collects() { answers 10048 /metrics "nf_conntrack_scrape_collector_success{collector=\"$1\"} $2"; }
confined() { answers "$2" /metrics "conntrack_$1_confined{by=\"$3\"} 1"; }
no_rule() { local all; all=$(inside iptables-save; inside ip6tables-save); not grep conntrack-guard <<<"$all"; }
# Whether container $1 runs as user $2 with the capabilities $3 and no other.
runs_as() {
  local status
  status=/proc/$(engine inspect --format '{{.State.Pid}}' "$1")/status
  if ! { grep -qP "^Uid:\t$2\t" "$status" && grep -qx "CapPrm:.$3" "$status" && grep -qx "CapBnd:.$3" "$status"; }; then grep -E '^(Uid|Cap)' "$status"; return 1; fi
}

# What the Dockerfile's header says, with a network namespace of this script's in the place of the host's. podman alone gives a read-only
# container a /run and a /tmp that can be written to, unless told not to.
container() { engine run --network "ns:/run/netns/$name" --cap-drop ALL --read-only --read-only-tmpfs=false "$@"; }
exporter() { container --name exporter --detach "$@" "$image" conntrack-exporter >/dev/null; }
actioner() { container --cap-add NET_ADMIN --cap-add NET_RAW --user 0 --tmpfs /run -v "$work/state:/var/lib/conntrack-guard" "$@"; }
dry() { actioner --name actioner --detach "$image" conntrack-actioner >/dev/null; }
enforcing() { actioner --name actioner --detach -v "$work/policy:/etc/conntrack-guard:ro" "$image" conntrack-actioner >/dev/null; }
tell() { engine exec actioner conntrack-actioner "$@"; }
end() { engine stop "$1" >/dev/null; engine rm "$1" >/dev/null; }

# Two hosts and a wire between them. Both ends are public addresses by the policy's measure: private ones are never banned. The first looks at connections,
# as a host with a firewall does.
wire() {
  ip netns add "$name"
  ip netns add "$name-outside"
  inside ip link set lo up
  inside ip link add wire type veth peer name wire netns "$name-outside"
  inside ip address add "$here/24" dev wire
  inside ip link set wire up
  from_outside ip address add "$there/24" dev wire
  from_outside ip link set wire up
  inside iptables -A INPUT -m conntrack --ctstate INVALID -j DROP
}

# Those of a build that was interrupted, too.
remove_containers() { local each; for each in $(engine ps --all --external --quiet); do engine rm --force --time 0 "$each" >/dev/null; done; }

shut_down() {
  remove_containers || true
  find /sys/fs/cgroup -depth -type d -path '*/libpod_parent*' -exec rmdir {} + 2>/dev/null || true
  ip netns delete "$name" 2>/dev/null || true
  ip netns delete "$name-outside" 2>/dev/null || true
}
trap shut_down EXIT

configure
mapfile -t bases < <(sed -nE 's/^FROM ([^ ]+).*/\1/p' packaging/Dockerfile)
debian_slim "${bases[1]}"
rust_on_debian "${bases[0]}" "${bases[1]}"
remove_containers
rm -rf "${work:?}/state"; mkdir "$work/state"
sed 's/^enforce: false/enforce: true/' packaging/policy.yaml >"$work/policy/policy.yaml"

heading "Built"
# --network host: for the registries, which the build of any engine has.
engine build --pull=never --network host -f packaging/Dockerfile -t "$image" . >"$work/build.log" 2>&1 || { tail -20 "$work/build.log" >&2; exit 1; }
engine image prune --force >/dev/null
check "packaging/Dockerfile builds an image, of $(engine image inspect --format '{{.Size}}' "$image" | numfmt --to=iec)" engine image exists "$image"
wire
for program in exporter actioner; do
  check "conntrack-$program runs in it" container --rm "$image" "conntrack-$program" --version
  check "the licences of what the $program is linked with are there" \
    container --rm "$image" zgrep -q '^tokio .*: MIT$' "/usr/share/doc/conntrack-guard/conntrack-$program.txt.gz"
done
check "its user is nobody" [ "$(container --rm "$image" id -u)" = 65534 ]

heading "The exporter"
exporter --user 0 --cap-add NET_ADMIN
check "it is ready" ready 10048 exporter
for collector in table stat flows sources sockets timeouts; do check "it collects $collector" collects "$collector" 1; done
check "the second host reaches it" reaches 10048
check "and is counted as a source" answers 10048 /metrics 'nf_conntrack_sources 1'
check "it is root with CAP_NET_ADMIN and nothing else" runs_as exporter 0 0000000000001000
for by in capabilities seccomp $(has_landlock && echo landlock); do check "it has confined itself by $by" confined exporter 10048 "$by"; done
end exporter
exporter
check "as nobody, without a capability, it is ready" ready 10048 exporter
for collector in table stat timeouts; do check "and collects $collector" collects "$collector" 1; done
for collector in flows sources sockets; do check "and says that it cannot collect $collector" collects "$collector" 0; done
end exporter
exporter --user 0 --cap-add NET_ADMIN

heading "The actioner, in dry run"
dry
check "it is ready" ready 10049 actioner
check "both name the same table" [ "$(get 10048 /metrics | grep -o 'table_id="[^"]*"' | head -1)" = "$(get 10049 /metrics | grep -o 'table_id="[^"]*"' | head -1)" ]
check "status says so" says 'dry run' "$(tell status 2>&1)"
check "it made no set" no_set
check "it made no rule" no_rule
end actioner

heading "The actioner, enforcing"
enforcing
check "it is ready" ready 10049 actioner
check "status says so" says 'enforcing' "$(tell status 2>&1)"
check "it is root with CAP_NET_ADMIN and CAP_NET_RAW and nothing else" runs_as actioner 0 0000000000003000
for by in capabilities seccomp $(has_landlock && echo landlock); do check "it has confined itself by $by" confined actioner 10049 "$by"; done
check "the second host reaches port 10048" reaches 10048
check "ban by hand" tell ban "$there" --for 1h --reason 'container test'
check "the ban is in the set" in_set
check "one drop rule" one_rule
check "its packets arrive no more" not reaches 10048
end actioner
check "stopped and removed: the ban is in the set" in_set
check "its packets do not arrive" not reaches 10048
enforcing
check "a new container is ready" ready 10049 actioner
check "and knows the ban" says "$there" "$(tell bans 2>&1)"
check "one drop rule, not two" one_rule
engine kill actioner >/dev/null; engine rm --force actioner >/dev/null
check "killed: its packets do not arrive" not reaches 10048
enforcing
check "a new container is ready" ready 10049 actioner
check "unban by hand" tell unban "$there"
check "the second host reaches port 10048 again" reaches 10048
check "ban by hand" tell ban "$there" --for 1h --reason 'container test'
check "its packets arrive no more" not reaches 10048
end actioner

heading "Torn down"
check "conntrack-actioner teardown" actioner --rm -v "$work/policy:/etc/conntrack-guard:ro" "$image" conntrack-actioner teardown
check "no rule of ours" no_rule
check "no set of ours" no_set
check "the second host reaches port 10048" reaches 10048

printf '\n'
[ "$failed" = 0 ] || { echo "try-container: $failed checks FAILED"; exit 1; }
echo "try-container: all checks passed"
