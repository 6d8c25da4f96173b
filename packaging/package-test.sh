#!/usr/bin/env bash
# package-test.sh OLD_DIR NEW_DIR: installs, upgrades, removes and purges both packages on a Debian 12 that boots by systemd, and says
# what came of it, a line a check. OLD_DIR and NEW_DIR hold the packages of two versions. Root. Exit 1 when any check failed.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=packaging/nspawn.sh
. packaging/nspawn.sh
# shellcheck source=packaging/headed-checks.sh
. packaging/headed-checks.sh
# shellcheck source=packaging/looks.sh
. packaging/looks.sh

old=$1 new=$2
work=$PWD/target/package-test
root=$work/root
gone() { inside test ! -e "$1" || { echo "$1 is there"; return 1; }; }
table_id() { get "$1" /metrics | grep -o 'table_id="[^"]*"'; }
no_rule() { says '' "$(inside iptables-save)" && not grep -q conntrack-guard <<<"$(inside iptables-save; inside ip6tables-save)"; }
closed_port() { inside iptables -S INPUT | grep -q -- '--dport 23 '; }
exposure() { inside systemd-analyze security --threshold=15 --no-pager "$1"; }
no_failed_unit() { local units; units=$(inside systemctl --failed --no-legend); [ -z "$units" ] || { echo "$units"; return 1; }; }
owner_of() { inside bash -c "stat -c %u /proc/\$(systemctl show -P MainPID $1)"; }
nobodys() { [ "$(owner_of "$1")" -ge 61184 ] || { owner_of "$1"; return 1; }; }
# Whether every thread of unit $1 has no capability beside those of the bits $2, no new privileges, and a filter of system calls.
given_up() {
  # shellcheck disable=SC2016  # for the shell inside
  inside bash -c 'for status in /proc/$(systemctl show -P MainPID "$1")/task/*/status; do
    for set in CapInh CapPrm CapEff CapBnd CapAmb; do
      bits=$(sed -n "s/^$set:\t//p" "$status"); [ $((0x$bits & ~$2)) = 0 ] || { echo "$status: $set $bits"; exit 1; }
    done
    grep -q "^NoNewPrivs:.1" "$status" && grep -q "^Seccomp:.2" "$status" || { cat "$status"; exit 1; }
  done' - "$1" "$2"
}
# The line of `systemctl status`, which is told five seconds late.
status_line() {
  # shellcheck disable=SC2016
  inside bash -c 'for i in $(seq 100); do line=$(systemctl show -P StatusText conntrack-actioner); grep -qF "$1" <<<"$line" && exit; sleep 0.2; done; echo "$line"; exit 1' - "$1"
}
install_debs() { mkdir -p "$root/root/debs"; rm -f "$root"/root/debs/*; cp "$1"/*.deb "$root/root/debs/"; inside bash -c 'DEBIAN_FRONTEND=noninteractive dpkg -i /root/debs/*.deb'; }

# A connection attempt a tenth of a second, until told to stop: none may succeed.
knock() { while [ ! -e "$work/stop" ]; do if from_outside timeout 1 bash -c "exec 3<>/dev/tcp/$here/10048" 2>/dev/null; then echo in >>"$work/knocks"; else echo out >>"$work/knocks"; fi; done; }

trap shut_down EXIT
mkdir -p "$work"
base_root "$PWD/target/debian12"
rm -rf "$root" "$work/stop" "$work/knocks"
cp -a --reflink=auto target/debian12 "$root"
boot "$root"
wire

heading "Installed"
said=$(install_debs "$old" 2>&1) || { echo "$said"; exit 1; }
check "conntrack-exporter is active" active conntrack-exporter.service
check "conntrack-actioner is active" active conntrack-actioner.service
check "conntrack-exporter is ready" ready 10048
check "conntrack-actioner is ready" ready 10049
check "the exporter's /metrics answers, and reads the table" answers 10048 /metrics 'nf_conntrack_scrape_collector_success{collector="flows"} 1'
check "the exporter sees sockets and sources" answers 10048 /metrics 'nf_conntrack_scrape_collector_success{collector="sockets"} 1'
check "the actioner's /metrics answers" answers 10049 /metrics 'conntrack_actioner_enforcing 0'
check "both name the same table" [ "$(table_id 10048 | head -1)" = "$(table_id 10049 | head -1)" ]
check "the exporter runs as nobody's user" nobodys conntrack-exporter.service
check "the actioner runs as nobody's user" nobodys conntrack-actioner.service
for by in capabilities seccomp $(has_landlock && echo landlock); do
  check "the exporter has confined itself by $by" confined exporter 10048 "$by"
  check "the actioner has confined itself by $by" confined actioner 10049 "$by"
done
check "each thread of the exporter has CAP_NET_ADMIN at most" given_up conntrack-exporter.service 0x1000
check "each thread of the actioner has CAP_NET_ADMIN and CAP_NET_RAW at most" given_up conntrack-actioner.service 0x3000
check "systemctl status says what is in force" status_line 'dry run: nothing is changed; 0 bans; '
check "dry run" says 'dry run' "$(inside conntrack-actioner status)"
check "dry run made no set" no_set
check "dry run made no rule" no_rule
check "systemd-analyze security of the running exporter ≤ 1.5" exposure conntrack-exporter.service
check "systemd-analyze security of the running actioner ≤ 1.5" exposure conntrack-actioner.service
check "no unit failed" no_failed_unit
check "man page, completion, policy, rules, dashboards are there" inside ls /usr/share/man/man1/conntrack-actioner.1.gz \
  /usr/share/bash-completion/completions/conntrack-exporter /etc/conntrack-guard/policy.yaml \
  /usr/share/conntrack-guard/alerts/conntrack-guard.rules.yml /usr/share/conntrack-guard/dashboards/conntrack.json
for of in exporter actioner; do
  check "the licences of what the $of is linked with are there" inside zgrep -q '^tokio .*: MIT$' "/usr/share/doc/conntrack-$of/third-party-licences.txt.gz"
done

heading "A policy with an error, then enforcing"
inside sed -i 's/^enforce: false/enfroce: true/' /etc/conntrack-guard/policy.yaml
check "systemctl reload refuses it" not inside systemctl reload conntrack-actioner
check "and the actioner goes on" active conntrack-actioner.service
inside sed -i 's/^enfroce: true/enforce: true/' /etc/conntrack-guard/policy.yaml
check "systemctl reload takes the right one" inside systemctl reload conntrack-actioner
# shellcheck disable=SC2016  # for the shell inside
check "status says enforcing" inside bash -c 'for i in $(seq 50); do conntrack-actioner status | grep -q "^mode *enforcing" && exit; sleep 0.2; done; conntrack-actioner status; exit 1'
check "the second host reaches port 10048" reaches 10048
check "ban by hand" inside conntrack-actioner ban "$there" --for 1h --reason 'package test'
check "the ban is in the set" in_set
check "one drop rule" one_rule
check "its packets arrive no more" not reaches 10048
check "systemctl status says so" status_line 'enforcing; 1 ban; '

heading "Stopped, killed, hung, upgraded: bans stay"
inside systemctl stop conntrack-actioner.service
check "stopped: the ban is in the set" in_set
check "stopped: its packets do not arrive" not reaches 10048
get 10049 /metrics >/dev/null 2>&1 || true
check "stopped: nobody who calls starts it" not inside systemctl is-active conntrack-actioner.service conntrack-actioner.socket
inside systemctl start conntrack-actioner.service
inside systemctl kill -s KILL conntrack-actioner.service
# shellcheck disable=SC2016
check "killed: systemd starts it again" inside bash -c 'for i in $(seq 100); do systemctl is-active -q conntrack-actioner && [ "$(systemctl show -P NRestarts conntrack-actioner)" -ge 1 ] && exit; sleep 0.2; done; exit 1'
check "killed: ready again" ready 10049
check "killed: the ban is in the set" in_set
inside bash -c 'mkdir -p /run/systemd/system/conntrack-actioner.service.d; printf "[Service]\nWatchdogSec=3s\n" >/run/systemd/system/conntrack-actioner.service.d/soon.conf; systemctl daemon-reload; systemctl restart conntrack-actioner'
ready 10049 || true
inside systemctl kill -s STOP conntrack-actioner.service
# shellcheck disable=SC2016
check "hung: the watchdog ends it, and systemd starts it again" inside bash -c 'for i in $(seq 300); do [ "$(systemctl show -P NRestarts conntrack-actioner)" -ge 1 ] && systemctl is-active -q conntrack-actioner && exit; sleep 0.2; done; systemctl status --no-pager conntrack-actioner; exit 1'
check "hung: ready again" ready 10049
check "hung: the ban is in the set" in_set
inside bash -c 'rm -r /run/systemd/system/conntrack-actioner.service.d; systemctl daemon-reload'
knock &
knocking=$!
said=$(install_debs "$new" 2>&1) || { echo "$said"; exit 1; }
ready 10049
touch "$work/stop"; wait "$knocking"
check "upgraded: the newer version is installed" says '0.1.0-2' "$(inside dpkg-query -W conntrack-actioner)"
check "upgraded: the edited policy is kept" inside grep -q '^enforce: true' /etc/conntrack-guard/policy.yaml
check "upgraded: both are active" inside systemctl is-active conntrack-exporter conntrack-actioner
check "upgraded: the ban is in the set" in_set
check "of $(wc -l <"$work/knocks") attempts during the upgrade none arrived" not grep -q in "$work/knocks"
check "no unit failed" no_failed_unit

heading "Booted with a saved ruleset that names our sets"
inside iptables -A INPUT -p tcp --dport 23 -j DROP
inside netfilter-persistent save >/dev/null 2>&1
check "the ruleset names our set" inside grep -q 'match-set conntrack-guard-4' /etc/iptables/rules.v4
reboot_machine "$root"
check "the saved ruleset is loaded" closed_port
check "the actioner is ready" ready 10049
check "one drop rule, not two" one_rule
check "the ban is back from the store" inside bash -c "for i in \$(seq 50); do ipset -q test conntrack-guard-4 $there && exit; sleep 0.2; done; exit 1"
check "its packets do not arrive" not reaches 10048
inside systemctl disable conntrack-guard-sets.service >/dev/null 2>&1
reboot_machine "$root"
check "without conntrack-guard-sets.service the ruleset does not load (so the check can fail)" not closed_port
check "and netfilter-persistent is active nevertheless: nobody would be told" active netfilter-persistent.service
inside systemctl enable conntrack-guard-sets.service >/dev/null 2>&1
reboot_machine "$root"
check "with it, the ruleset loads again" closed_port

heading "Removed"
ready 10049 || true
said=$(inside dpkg -r conntrack-exporter conntrack-actioner 2>&1) || { echo "$said"; exit 1; }
check "it says that the saved ruleset will not load" says 'IT WILL NOT LOAD AT THE NEXT BOOT' "$said"
check "no service runs" inside bash -c '! pgrep -x conntrack-.*'
check "no rule of ours" no_rule
check "no set of ours" no_set
check "the host's own rule stays" closed_port
check "the second host reaches the machine" from_outside timeout 5 bash -c "until ip neigh show $here | grep -q lladdr; do (exec 3<>/dev/tcp/$here/9) 2>/dev/null; sleep 0.1; done"
check "the policy stays" inside test -e /etc/conntrack-guard/policy.yaml
check "the state stays" inside test -e /var/lib/conntrack-guard/state.json

heading "Purged"
said=$(inside dpkg -P conntrack-exporter conntrack-actioner 2>&1) || { echo "$said"; exit 1; }
for path in /etc/conntrack-guard /etc/default/conntrack-actioner /etc/default/conntrack-exporter /var/lib/conntrack-guard /var/lib/private/conntrack-guard \
  /run/conntrack-guard /run/conntrack-guard-root /usr/share/conntrack-guard; do
  check "no $path" gone "$path"
done
check "no unit, enabled or masked" inside bash -c '! find /etc/systemd /lib/systemd -name "conntrack*" | grep .'
check "no user" inside bash -c '! getent passwd | grep conntrack'
check "no file of ours anywhere" inside bash -c '! find / -xdev -name "conntrack-guard*" -not -path "/proc/*" | grep .'
check "no rule, no set" no_set

printf '\n'
[ "$failed" = 0 ] || { echo "package-test: $failed checks FAILED (the machine's root: $root)"; exit 1; }
echo "package-test: all checks passed"
