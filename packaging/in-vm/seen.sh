# seen.sh: what is looked at inside the virtual machine. Sourced by run.sh.
# shellcheck shell=bash disable=SC2154  # $there, and more, is of whoever sources this

install_packages() { dpkg -i /root/debs/*.deb; }
enforce() { sed -i 's/^enforce: false/enforce: true/' /etc/conntrack-guard/policy.yaml; }
reload() { systemctl reload conntrack-actioner && wait_for enforcing; }
enforcing() { conntrack-actioner status | grep -q '^mode *enforcing'; }
status_says() { says "$1" "$(conntrack-actioner status)"; }
log_says() { says "$1" "$(journalctl --no-pager -o cat -u "${2:-conntrack-actioner}")"; }
metric() { says "$2" "$(get "$1" /metrics)"; }
banned() { ipset -q test conntrack-guard-4 "$there"; }
# at_least A.B: whether this kernel is of that version or later.
at_least() { [ "$(printf '%s\n' "$1" "$(uname -r)" | sort -V | head -1)" = "$1" ]; }
nobody_banned() { says 'bans      0 in force, 0 in the kernel' "$(conntrack-actioner status)"; }
# What the kernel's log says that is said by no healthy machine.
kernel_calm() { ! dmesg | grep -E 'BUG|WARNING:|Oops|Out of memory|segfault|hung_task'; }
memory_of() { awk '/^(VmRSS|VmHWM)/ { printf "%s%s %.1f MiB", sep, $1 == "VmHWM:" ? "at most" : "now", $2 / 1024; sep = ", " }' "/proc/$(systemctl show -P MainPID "conntrack-$1")/status"; }
say_memory() { for of in exporter actioner; do echo "said    memory of the $of: $(memory_of "$of")"; done; }
collectors_succeed() {
  local page failing
  page=$(get 10048 /metrics)
  [ "$(grep -c '^nf_conntrack_scrape_collector_success{' <<<"$page")" = 6 ] || { grep collector_success <<<"$page"; return 1; }
  failing=$(grep '^nf_conntrack_scrape_collector_success{.*} 0' <<<"$page") || return 0
  echo "$failing"; journalctl --no-pager -o cat -u conntrack-exporter | tail -5
  return 1
}

# Modules that the kernel cannot have, as if they were not installed.
forbid() { for module in "$@"; do echo "install $module /bin/false"; done >/etc/modprobe.d/forbidden.conf; }
allow() { rm /etc/modprobe.d/forbidden.conf; }
# fails_with WORDS COMMAND...: it fails, and says so.
fails_with() {
  local words=$1 said; shift
  if said=$("$@" 2>&1); then echo "$said"; return 1; fi
  says "$words" "$said"
}
ready_now() { get 10049 /-/ready | grep -q '200 OK'; }
# Whether a reload comes to enforce within five seconds.
reload_soon() { systemctl reload conntrack-actioner && for _ in $(seq 25); do enforcing && return; sleep 0.2; done; false; }
status_line_says() { says "$1" "$(systemctl show -P StatusText conntrack-actioner)"; }

profiled() { says "conntrack-$1 (enforce)" "$(cat "/proc/$(systemctl show -P MainPID "conntrack-$1")/attr/current")"; }
aa_lists() { local said; said=$(aa-status); says conntrack-actioner "$said" && says conntrack-exporter "$said"; }
denials() { dmesg | grep 'apparmor="DENIED"'; }
denials_of() { says "name=\"$1\"" "$(denials)"; }
nothing_else_denied() { ! denials | grep conntrack | grep -v 'name="/root/policy.yaml"'; }

# What docs/install.md says of hosts with the legacy iptables.
legacy_recipe() {
  mkdir -p /etc/systemd/system/conntrack-actioner.service.d
  printf '[Service]\nUser=root\nDynamicUser=no\nRootDirectory=\nReadWritePaths=/run\n' >/etc/systemd/system/conntrack-actioner.service.d/legacy.conf
  printf 'ip_tables\niptable_raw\nip6table_raw\nxt_set\n' >/etc/modules-load.d/legacy.conf
  systemctl daemon-reload
  systemctl restart systemd-modules-load
}
