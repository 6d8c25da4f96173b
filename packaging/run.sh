#!/usr/bin/env bash
# run.sh [stack]: both programs on this host, watching its own table. With `stack`, Prometheus and Alertmanager beside them.
#
#   ENFORCE=1        bans are carried out; without it everything is decided, written down, and nothing is changed
#   EXPORTER, ACTIONER, PROMETHEUS, ALERTMANAGER   addresses (default 127.0.0.1 with 10048, 10049, 19090, 19093)
#
# Ctrl-C ends all of it. What stays: target/run (audit log, policy), and, where it enforced, our sets and drop rule with the
# bans in force, until they expire or `conntrack-actioner teardown`.
set -euo pipefail
cd "$(dirname "$0")/.."

exporter=${EXPORTER:-127.0.0.1:10048}
actioner=${ACTIONER:-127.0.0.1:10049}
prometheus=${PROMETHEUS:-127.0.0.1:19090}
alertmanager=${ALERTMANAGER:-127.0.0.1:19093}
enforce=${ENFORCE:-0}
stack=${1:-}
bin=${CARGO_TARGET_DIR:-target}/release
run=$PWD/target/run
policy=$run/policy.yaml
socket=$run/actioner.sock
pids=()

die() { printf 'run: %s\n' "$@" >&2; exit 1; }
heading() { printf '\n\033[1m%s\033[0m\n' "$1"; }
[ -t 1 ] || heading() { printf '\n%s\n' "$1"; }

# GET $2 of $1 (address:port), the body alone: a fresh machine has no curl.
get() {
  local host=${1%:*} port=${1##*:}
  exec 3<>"/dev/tcp/$host/$port" || return 1
  printf 'GET %s HTTP/1.0\r\nHost: %s\r\n\r\n' "$2" "$1" >&3
  sed '1,/^\r$/d' <&3
  exec 3>&-
}

# Waits until $1 answers $2, or the process $3 is gone.
ready() {
  local tries=0
  until get "$1" "$2" >/dev/null 2>&1; do
    kill -0 "$3" 2>/dev/null || die "$4 did not start: see above"
    tries=$((tries + 1))
    [ "$tries" -lt 300 ] || die "$4 does not answer on $1 after 30 s"
    sleep 0.1
  done
}

start() { "$@" & pids+=($!); }

# shellcheck disable=SC2317  # called by trap
stop() {
  trap - INT TERM EXIT
  [ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null || true
  wait || true
  heading "Stopped"
  echo "  audit log   $run/audit.jsonl"
  if [ "$enforce" = 1 ]; then
    echo "  in force    the sets conntrack-guard-4 and -6 and their drop rule, with the bans in them, until each expires"
    echo "  see them    ipset list conntrack-guard-4"
    echo "  remove them $bin/conntrack-actioner teardown --policy.file $policy --storage.path $run --admin.socket $socket"
  else
    echo "  nothing of this host was changed"
  fi
}

# What the exporter says, for a person.
show_table() {
  heading "The table of this host"
  get "$exporter" /metrics | awk '
    # The value is what follows the last blank.
    /^nf_conntrack_entries / { entries = $NF }
    /^nf_conntrack_entries_limit / { limit = $NF }
    /^nf_conntrack_sources / { sources = $NF }
    /^nf_conntrack_local_entries / { own = $NF }
    /^nf_conntrack_source_entries\{/ { split($0, part, "\""); count[part[2]] = $NF }
    END {
      fill = limit > 0 ? sprintf("%.2f %%", 100 * entries / limit) : "no limit"
      printf "  entries     %d of %d (%s), %d of them opened by this host itself\n", entries, limit, fill, own
      if (entries == 0) print "              nothing is tracked here until a firewall rule asks for it: NAT, or a match on the connection state"
      printf "  sources     %d\n", sources
      n = 0
      while (n < 10) {
        best = ""
        for (source in count) if (best == "" || count[source] > count[best]) best = source
        if (best == "") break
        if (n++ == 0) print "  the largest"
        printf "    %-40s %8d entries\n", best, count[best]
        delete count[best]
      }
      if (n == 0) print "  the largest none holds 50 entries or more (--collector.sources.min-entries)"
    }'
}

stack_config() {
  local guard=$PWD/alerts
  mkdir -p "$run/stack"
  sed -e "s|^- conntrack-guard.rules.yml|- $guard/conntrack-guard.rules.yml|" -e 's/: 15s/: 5s/; s/scrape_timeout: 10s/scrape_timeout: 5s/' \
    -e "s/localhost:10048/$exporter/; s/localhost:10049/$actioner/; s/localhost:9093/$alertmanager/" \
    "$guard/prometheus.example.yml" >"$run/stack/prometheus.yml"
  # Our route and inhibit rules; the people of the example get no mail from here.
  awk -v url="http://$actioner/webhook" '
    /^receivers:/ {
      print; print "- name: conntrack-actioner"; print "  webhook_configs:"
      print "  - {url: \"" url "\", send_resolved: false, max_alerts: 0}"
      print "- name: team"; print "- name: pager"; skip = 1; next
    }
    /^inhibit_rules:/ { skip = 0 }
    !skip' "$guard/alertmanager.example.yml" >"$run/stack/alertmanager.yml"
}

start_stack() {
  local servers=target/servers/bin
  stack_config
  start "$servers/alertmanager" --config.file="$run/stack/alertmanager.yml" --storage.path="$run/stack/alertmanager" \
    --web.listen-address="$alertmanager" --cluster.listen-address= --log.level=warn
  start "$servers/prometheus" --config.file="$run/stack/prometheus.yml" --storage.tsdb.path="$run/stack/data" \
    --web.listen-address="$prometheus" --log.level=warn
  ready "$alertmanager" /-/ready "${pids[-2]}" Alertmanager
  ready "$prometheus" /-/ready "${pids[-1]}" Prometheus
}

[ "$(id -u)" = 0 ] || die "root is needed to read and change the kernel's table: sudo make run"
[ -e /proc/sys/net/netfilter/nf_conntrack_count ] || modprobe nf_conntrack 2>/dev/null ||
  die "this kernel tracks no connections (no /proc/sys/net/netfilter/nf_conntrack_count, and modprobe nf_conntrack fails)"

mkdir -p "$run"
mode="dry run: decides, writes down, changes nothing (ENFORCE=1 make run acts)"
sed 's/^enforce: .*/enforce: false/' packaging/policy.yaml >"$policy"
if [ "$enforce" = 1 ]; then
  mode="ENFORCING: bans and deletes by the policy. Bans live in the kernel alone, a reboot ends them"
  sed -i 's/^enforce: .*/enforce: true/' "$policy"
fi
"$bin/conntrack-actioner" check-policy "$policy" >"$run/policy.txt" || { cat "$run/policy.txt"; die "the policy is not valid"; }

trap stop EXIT
# Ctrl-C is how it is meant to end.
trap 'exit 0' INT
trap 'exit 143' TERM
start "$bin/conntrack-exporter" --web.listen-address="$exporter" --log.level=warn
ready "$exporter" /-/ready "${pids[-1]}" conntrack-exporter
start "$bin/conntrack-actioner" --web.listen-address="$actioner" --policy.file="$policy" --storage.path="$run" --admin.socket="$socket"
actioner_pid=${pids[-1]}
ready "$actioner" /-/ready "$actioner_pid" conntrack-actioner
[ -z "$stack" ] || start_stack

show_table
heading "Where to look"
echo "  mode        $mode"
echo "  metrics     http://$exporter/metrics  http://$actioner/metrics"
[ -z "$stack" ] || echo "  servers     http://$prometheus (Prometheus)  http://$alertmanager (Alertmanager)"
echo "  policy      $policy  (reload: kill -HUP $actioner_pid)"
echo "  audit log   $run/audit.jsonl"
heading "Decisions, as they are made (Ctrl-C ends)"
wait -n || true
die "one of the programs has ended: see above"
