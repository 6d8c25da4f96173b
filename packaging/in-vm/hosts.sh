# hosts.sh: two hosts on wires to this one, what they do, and the service they do it to. Sourced by run.sh.
# shellcheck shell=bash

# Public addresses by the policy's measure: private ones are never banned.
readonly here=198.51.100.1 there=198.51.100.66 honest_here=203.0.113.1 honest=203.0.113.9
readonly service=80

# host NAME ADDRESS OUR_ADDRESS: a network namespace at the other end of a wire.
host() {
  ip netns add "$1"
  ip link add "$1" type veth peer name wire netns "$1"
  ip address add "$3/24" dev "$1"
  ip link set "$1" up
  ip -n "$1" link set lo up
  ip -n "$1" address add "$2/24" dev wire
  ip -n "$1" link set wire up
}

hosts() {
  host attacker "$there" "$here"
  host honest "$honest" "$honest_here"
  # What he closes he closes without a word: his kernel's FIN and RST stay with him.
  ip netns exec attacker nft -f - <<<'table ip silent { chain out { type filter hook output priority 0; tcp flags & (fin|rst) != 0 drop; }; }'
}

# A firewall that asks for the state of connections, as most do: with it this host tracks them.
track() { iptables -A INPUT -m conntrack --ctstate INVALID -j DROP; }

# A listener with TCP_DEFER_ACCEPT, as Apache's. A silent request is given up after seconds and not after a minute (DOMAIN.md 1).
serve() {
  sysctl -qw net.ipv4.tcp_synack_retries=1 net.ipv4.tcp_max_syn_backlog=4096 net.core.somaxconn=4096
  perl service.pl "$service" &
  wait_for reaches honest "$honest_here" "$service"
}

# wait_for COMMAND...: at most a minute and a half.
wait_for() {
  local until=$((SECONDS + 90))
  until "$@" >/dev/null 2>&1; do [ "$SECONDS" -lt "$until" ] || { "$@"; return 1; }; sleep 0.2; done
}

# reaches HOST ADDRESS PORT: whether that host can open a connection; a banned one's SYN is lost.
reaches() { ip netns exec "$1" timeout 2 bash -c "exec 3<>/dev/tcp/$2/$3" 2>/dev/null; }
attacker_reaches() { reaches attacker "$here" 10048; }
honest_reaches() { reaches honest "$honest_here" 10048; }

# attack N: N connections that are closed without a word, sixty a second.
attack() { ip netns exec attacker perl attacker.pl "$here" "$service" "$1"; }

# An honest client, who keeps one connection and opens one a second, until he is told to stop.
live() { ip netns exec honest perl honest.pl "$honest_here" "$service" >/root/honest & living=$!; }
stop_living() { kill -TERM "$living"; wait "$living"; cat /root/honest; }

entries_of() { grep -c "src=$1 dst=$here" /proc/net/nf_conntrack; }
