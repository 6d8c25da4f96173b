#!/bin/bash
# run.sh: plays the scene that the kernel's command line names, in a virtual machine that vm.sh boots, a line a check on the second serial
# line, and puts the machine out. A scene that boots anew names in /root/next what comes after. Sourced files say what is done and seen.
set -uo pipefail
stty -F /dev/ttyS1 -opost
exec >/dev/ttyS1 2>&1 </dev/null
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
cd /root/in-vm || exit
inside() { "$@"; }
# shellcheck source=packaging/checks.sh
. ./checks.sh
# shellcheck source=packaging/looks.sh
. ./looks.sh
# shellcheck source=packaging/in-vm/hosts.sh
. ./hosts.sh
# shellcheck source=packaging/in-vm/seen.sh
. ./seen.sh
# shellcheck source=packaging/in-vm/scenes.sh
. ./scenes.sh

asked() { sed -nE "s/.*\b$1=([^ ]*).*/\1/p" /proc/cmdline; }
scene=$(cat /root/next 2>/dev/null || asked scene)
rm -f /root/next
"scene_$scene"
if [ -e /root/next ]; then sync; systemctl reboot; exit; fi
echo "end $failed"
sleep 1 # for the serial line
systemctl poweroff --force --force >/dev/null 2>&1
