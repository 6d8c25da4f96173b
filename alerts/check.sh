#!/usr/bin/env bash
# check.sh [SERVERS_DIR]: the rules, their tests and both example configurations, by the real promtool and amtool.
# SERVERS_DIR is what packaging/servers.sh filled (default target/servers). Exit 1 when anything is wrong; all is checked first.
# shellcheck disable=SC2317  # functions are called through check()
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
servers=$(cd "${1:-$here/../target/servers}" 2>/dev/null && pwd) || servers=
if [ -z "$servers" ] || [ ! -x "$servers/bin/promtool" ] || [ ! -x "$servers/bin/amtool" ]; then
  echo "check.sh: no promtool and amtool below ${1:-target/servers}/bin; run packaging/servers.sh ${1:-target/servers} first" >&2
  exit 2
fi
cd "$here" || exit 2
# shellcheck source=packaging/checks.sh
. ../packaging/checks.sh

# Every alert has a page, and every page an alert.
runbooks() {
  local alerts pages
  alerts=$(sed -n 's/^ *- alert: //p' ./*.rules.yml | sort -u)
  pages=$(cd ../docs/runbooks && ls Conntrack*.md) || return 1
  diff <(echo "$alerts") <(echo "${pages//.md/}") && ! grep 'runbook_url:' ./*.rules.yml | grep -v '/docs/runbooks/Conntrack[A-Za-z]*\.md$'
}

# An inhibited alert would not reach the actioner.
inhibitions_spare_remediation() {
  ! grep 'target_matchers:' alertmanager.example.yml | grep -v 'remediation=""'
}

# promtool reads 0x20 as a hexadecimal number: a series of one sample, not of twenty zeros. It is written 0+0x20.
no_hexadecimal_zeros() {
  ! grep -nE 'values:.*[: ]0x[0-9]' tests/*.yml
}

receivers() {
  "$servers/bin/amtool" config routes test --config.file=alertmanager.example.yml --verify.receivers="$1" "${@:2}"
}

check "rules" "$servers/bin/promtool" check rules conntrack-guard.rules.yml
check "no hexadecimal zeros in tests" no_hexadecimal_zeros
# All at once: promtool uses one CPU, and takes seconds for some of them.
running=()
for test in tests/*.yml; do
  (check "$test" "$servers/bin/promtool" test rules "$test"; exit "$failed") &
  running+=($!)
done
for test in "${running[@]}"; do wait "$test" || failed=1; done
check "prometheus.example.yml" "$servers/bin/promtool" check config prometheus.example.yml
check "alertmanager.example.yml" "$servers/bin/amtool" check-config alertmanager.example.yml
check "remediation reaches the actioner and people" \
  receivers conntrack-actioner,team alertname=ConntrackSourceHoardsEntries severity=info remediation=conntrack-guard
check "remediation of any severity reaches people too" \
  receivers conntrack-actioner,team alertname=OfYourOwn severity=warning remediation=conntrack-guard
check "critical alerts page, and only those" receivers pager alertname=ConntrackTableFull severity=critical
check "warnings go to the team" receivers team alertname=ConntrackEarlyDrop severity=warning
check "inhibit rules spare remediation" inhibitions_spare_remediation
check "a runbook for each alert" runbooks
exit "$failed"
