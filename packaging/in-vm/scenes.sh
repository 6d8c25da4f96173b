# scenes.sh: what is tried on a kernel, each beginning with a freshly booted machine. Sourced by run.sh.
# shellcheck shell=bash disable=SC2154  # $there, and more, is of whoever sources this

# Installed as packaged: both are there, confined, and see this kernel.
packaged() {
  check "both packages are installed" install_packages
  check "the exporter is ready" ready 10048
  check "the actioner is ready" ready 10049
  for of in exporter actioner; do check "the $of is active" active "conntrack-$of.service"; done
}

scene_guard() {
  track
  packaged
  guarded
  echo guard_again >/root/next
}

guarded() {
  for by in capabilities seccomp $(has_landlock && echo landlock); do
    check "the exporter has confined itself by $by" confined exporter 10048 "$by"
    check "the actioner has confined itself by $by" confined actioner 10049 "$by"
  done
  has_landlock || check "that this kernel has no Landlock is said" log_says 'landlock no'
  check "selftest finds nothing missing" conntrack-actioner selftest
  check "all six collectors succeed" collectors_succeed
  if at_least 5.15; then
    check "chains that grew too long are counted" metric 10048 nf_conntrack_stat_chain_too_long_total
  else
    check "no counter is shown that this kernel does not have (chain_too_long)" not metric 10048 nf_conntrack_stat_chain_too_long_total
  fi
  enforce
  check "systemctl reload: it enforces" reload
  check "one drop rule" one_rule
  attacked
  check "a restart of the service" systemctl restart conntrack-actioner
  check "keeps the ban" wait_for banned
  check "and his packets do not arrive" not attacker_reaches
  say_memory
  check "the kernel's log is calm" kernel_calm
}

# The article's attack (DOMAIN.md 1) on a small table, the packaged policy, no Prometheus.
attacked() {
  sysctl -qw net.netfilter.nf_conntrack_max=600
  hosts; serve; live
  check "the attacker reaches this host" attacker_reaches
  opened=$(attack 340)
  # On a busy host he loses patience with some.
  check "he opens 300 connections and more" [ "$opened" -ge 300 ]
  check "which hold half the table" [ "$(entries_of "$there")" -ge 300 ]
  check "and live for days" grep -q "ESTABLISHED.*src=$there" /proc/net/nf_conntrack
  cured
  check "none of the honest client's questions was lost" says ' 0 lost' "$lived"
}

# The attacker is banned, his entries are gone, everybody else goes on.
cured() {
  began=$SECONDS
  check "he is banned" wait_for banned
  echo "said    banned $((SECONDS - began)) s after his last connection"
  check "his packets do not arrive" not attacker_reaches
  check "his entries are gone" [ "$(entries_of "$there")" = 0 ]
  check "the honest host reaches this one" honest_reaches
  lived=$(stop_living)
  echo "said    of the honest client's questions: $lived"
  check "status says one ban" status_says '1 in force, 1 in the kernel'
}

# After a boot of this kernel.
scene_guard_again() {
  track; hosts
  check "booted anew: the actioner is ready" ready 10049
  check "booted anew: he is banned" wait_for banned
  check "booted anew: his packets do not arrive" not attacker_reaches
  check "unban" conntrack-actioner unban "$there"
  check "unbanned, he is not in the set" not banned
  check "unbanned, he reaches this host" attacker_reaches
  check "no unit failed" [ -z "$(systemctl --failed --no-legend)" ]
  check "the kernel's log is calm" kernel_calm
}

# The same under our profiles, enforced.
scene_apparmor() {
  track
  packaged
  cp /usr/share/conntrack-guard/apparmor/* /etc/apparmor.d/
  check "the profiles are loaded" systemctl reload-or-restart apparmor
  check "both programs start under them" systemctl restart conntrack-exporter conntrack-actioner
  check "the exporter is ready" ready 10048
  check "the actioner is ready" ready 10049
  for of in exporter actioner; do check "the $of is under its profile, enforced" profiled "$of"; done
  check "aa-status lists both" aa_lists
  guarded
  check "report and explain run under the profile" eval 'conntrack-actioner report >/dev/null && conntrack-actioner explain 198.51.100.66 >/dev/null'
  conntrack-exporter advise >/dev/null # its exit status tells of this host
  cp /etc/conntrack-guard/policy.yaml /root/policy.yaml
  check "a file that no profile names is denied" not conntrack-actioner check-policy /root/policy.yaml
  check "and the kernel's log says so" denials_of /root/policy.yaml
  check "nothing else was denied" nothing_else_denied
  echo apparmor_again >/root/next
}

scene_apparmor_again() {
  for of in exporter actioner; do check "booted anew: the $of is under its profile, enforced" profiled "$of"; done
  scene_guard_again
  check "nothing was denied" nothing_else_denied
}

# No ipset, as where a container's host or a hardened kernel lacks it; then ipset, and not the match that asks it; then both.
scene_no_ipset() {
  forbid ip_set xt_set
  track
  packaged
  check "selftest fails and names the module" fails_with ip_set_hash_net conntrack-actioner selftest
  enforce
  check "a reload that cannot enforce leaves dry run in force" not reload_soon
  check "status says what is missing" status_says ip_set_hash_net
  hosts
  check "systemctl restart starts it nevertheless" systemctl restart conntrack-actioner
  unprotected ip_set_hash_net
  forbid xt_set
  check "ip_set may be loaded: its log names the next, xt_set" wait_for log_says 'modprobe xt_set'
  check "still /-/ready answers 503" answers 10049 /-/ready ' 503 '
  allow
  protected_after_all
}

# It runs, bans nobody, and says so wherever it is asked. $1 is what must be loaded.
unprotected() {
  check "the service is active" active conntrack-actioner.service
  check "its log says that nothing is enforced" log_says 'NOTHING IS ENFORCED'
  check "its log names what to load" log_says "$1"
  check "status says that nothing is enforced" status_says 'NOTHING IS ENFORCED'
  check "status names what to load" status_says "$1"
  check "/-/ready answers 503 and names it" answers 10049 /-/ready "$1"
  check "systemctl status says it" wait_for status_line_says 'NOTHING IS ENFORCED'
  check "a ban by hand fails and names it" fails_with "$1" conntrack-actioner ban "$there" --for 1h --reason 'try-kernels'
  check "it is not called enforced" metric 10049 'conntrack_actioner_enforced_bans 0'
  check "and he reaches this host" attacker_reaches
}

protected_after_all() {
  check "all may be loaded: ready, without a restart" wait_for ready_now
  check "a ban by hand" conntrack-actioner ban "$there" --for 1h --reason 'try-kernels'
  check "is in the set" banned
  check "and his packets do not arrive" not attacker_reaches
  check "the service was not started again" [ "$(systemctl show -P NRestarts conntrack-actioner)" = 0 ]
}

# No connection tracking: nothing asks for it, and the module cannot be loaded.
scene_no_conntrack() {
  forbid nf_conntrack
  packaged
  check "the actioner's log says what to load" log_says 'modprobe nf_conntrack'
  check "the exporter's scrape says that the table cannot be read" metric 10048 'nf_conntrack_scrape_collector_success{collector="table"} 0'
  check "the exporter's log says what to load" log_says 'nf_conntrack' conntrack-exporter
  check "selftest fails and names the module" fails_with nf_conntrack conntrack-actioner selftest
  allow
  track
  check "it may be loaded: all six collectors succeed, without a restart" wait_for collectors_succeed
  check "the actioner sees the table" wait_for status_says 'entries ('
  check "selftest finds nothing missing" conntrack-actioner selftest
}

# More than the table holds: nobody gets in, until the attacker is out.
scene_full() {
  track
  packaged
  enforce
  check "systemctl reload: it enforces" reload
  sysctl -qw net.netfilter.nf_conntrack_max=400
  hosts; serve; live
  attack 420 >/dev/null
  check "the table is full, says the kernel" wait_for eval 'dmesg | grep -q "nf_conntrack: table full"'
  check "the honest host does not reach this one" not honest_reaches
  cured
  for of in exporter actioner; do check "the $of was not started again" [ "$(systemctl show -P NRestarts "conntrack-$of")" = 0 ]; done
  check "all six collectors succeed" collectors_succeed
  say_memory
  check "the kernel's log is calm" kernel_calm
}

# The older of iptables' two back ends.
scene_legacy() {
  for tool in iptables ip6tables; do update-alternatives --set $tool "/usr/sbin/$tool-legacy" >/dev/null; done
  track
  packaged
  enforce
  check "a legacy iptables is not enforced with as packaged" not reload_soon
  echo "said    $(conntrack-actioner status | grep -o 'NOT RELOADED.*')"
  legacy_recipe
  check "as docs/install.md says, it starts" systemctl restart conntrack-actioner
  check "it is ready" ready 10049
  check "it enforces" wait_for enforcing
  check "one drop rule" one_rule
  attacked
}
