#!/usr/bin/env bash
# need.sh PACKAGE...: installs the Debian packages that are missing, and says which. Nothing happens when all are there.
set -euo pipefail

missing=()
for package in "$@"; do
  status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$status" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" != 0 ]; then
  echo "need: ${missing[*]} missing, and only root can install packages: sudo apt-get install ${missing[*]}" >&2
  exit 1
fi
echo "need: installing ${missing[*]} with apt-get" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
install() { apt-get install -y --no-install-recommends "${missing[@]}" >"$log" 2>&1; }
install || { apt-get update >"$log" 2>&1 && install; } || {
  echo "need: apt-get could not install ${missing[*]}; it says:" >&2
  grep -E '^(E|W|Err)' "$log" >&2 || tail -5 "$log" >&2
  exit 1
}
