# headed-checks.sh: sourced by scripts that check many things under headings, and count what failed.
# shellcheck shell=bash disable=SC2034  # failed is for the script that sources this

failed=0

heading() { printf '\n%s\n' "$1"; }

# Runs $2..., which is quiet where all is well.
check() {
  local what=$1 output; shift
  if output=$("$@" 2>&1); then
    printf '  ok      %s\n' "$what"
  else
    failed=$((failed + 1))
    printf '  FAILED  %s\n' "$what"
    printf '%s\n' "$output" | tail -15 | sed 's/^/          | /'
  fi
}
