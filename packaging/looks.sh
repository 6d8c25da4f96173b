# looks.sh: how the installed packages are looked at. Sourced by package-test.sh, try-container.sh and, in a virtual machine, by in-vm/run.sh.
# shellcheck shell=bash disable=SC2154  # $there, and more, is of whoever sources this
#
# Whoever sources it defines inside COMMAND..., which runs it on the machine they are installed on, and sets $there, who is banned.

not() { ! "$@"; }
says() { grep -qF -- "$1" <<<"$2" || { printf 'no %q in:\n%s\n' "$1" "$2"; return 1; }; }
active() { inside systemctl is-active --quiet "$1" || { inside systemctl status --no-pager --lines=20 "$1"; return 1; }; }
get() { inside bash -c "exec 3<>/dev/tcp/127.0.0.1/$1 && printf 'GET $2 HTTP/1.0\r\n\r\n' >&3 && cat <&3"; }
answers() { says "$3" "$(get "$1" "$2")"; }
ready() { local tries=0; until get "$1" /-/ready 2>/dev/null | grep -q '200 OK'; do tries=$((tries + 1)); [ "$tries" -lt 100 ] || { get "$1" /-/ready; return 1; }; sleep 0.2; done; }
in_set() { inside ipset test conntrack-guard-4 "$there"; }
one_rule() { [ "$(inside iptables -t raw -S PREROUTING | grep -c 'conntrack-guard-4')" = 1 ] || { inside iptables -t raw -S; return 1; }; }
confined() { says "conntrack_$1_confined{by=\"$3\"} 1" "$(get "$2" /metrics | grep _confined; inside journalctl --no-pager -u "conntrack-$1" -g confined:)"; }
no_set() { local sets; sets=$(inside ipset list -n); [ -z "$sets" ] || { echo "$sets"; return 1; }; }
# Whether this kernel has Landlock: landlock_create_ruleset(2) asked for its version.
has_landlock() { [ "$(perl -e 'print syscall(444, 0, 0, 1)')" -gt 0 ]; }
