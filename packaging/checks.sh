# checks.sh: sourced by scripts that check many things and tell all of them, a line each.
# shellcheck shell=bash disable=SC2034  # failed is for the script that sources this

failed=0

# check WHAT COMMAND...: the command's output only where it fails, for most say much when all is well. `exit "$failed"` ends the script.
check() {
  local what=$1 output; shift
  if output=$("$@" 2>&1); then
    echo "ok      $what"
  else
    failed=1
    printf 'FAILED  %s\n%s\n' "$what" "$output"
  fi
}
