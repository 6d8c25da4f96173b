#!/usr/bin/env bash
# no-unsafe.sh: how many blocks of unsafe code stand in ours: none, and the compiler refuses one (unsafe_code = "forbid", for every member).
set -euo pipefail
cd "$(dirname "$0")/.."
grep -q '^unsafe_code = "forbid"$' Cargo.toml || { echo "no-unsafe: Cargo.toml does not forbid unsafe_code for the workspace" >&2; exit 1; }
members=0
for member in $(sed -n 's/^members = \[\(.*\)\]$/\1/p' Cargo.toml | tr -d '",'); do
  members=$((members + 1))
  # The workspace's lints hold for a member only that takes them or has them itself.
  grep -A1 '^\[lints\]$' "$member/Cargo.toml" | grep -q '^workspace = true$' || grep -q '^unsafe_code = "forbid"$' "$member/Cargo.toml" ||
    { echo "no-unsafe: $member/Cargo.toml neither takes the workspace's lints ([lints] workspace = true) nor forbids unsafe_code itself" >&2; exit 1; }
done
[ "$members" -gt 0 ] || { echo "no-unsafe: no members found in Cargo.toml" >&2; exit 1; }
# A lint that is forbidden cannot be allowed again in the code; what the compiler does not read may still hold some.
if git grep -nE '\bunsafe[[:space:]]+(\{|fn|impl|trait|extern)' -- '*.rs'; then
  echo "no-unsafe: unsafe code in the lines above" >&2
  exit 1
fi
echo "unsafe: 0 blocks, and forbidden in $members of $members members"
