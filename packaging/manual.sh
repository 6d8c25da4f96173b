#!/usr/bin/env bash
# Man pages and shell completions of both programs, from their own command lines: target/man/*.1, target/completions/.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
profile=${PROFILE:-debug}
mkdir -p target/completions
for program in conntrack-exporter conntrack-actioner; do
    "$target/$profile/$program" man target/man
    "$target/$profile/$program" completions bash >"target/completions/$program"
    "$target/$profile/$program" completions zsh >"target/completions/_$program"
    "$target/$profile/$program" completions fish >"target/completions/$program.fish"
done
echo "man pages in target/man, completions for bash, zsh and fish in target/completions"
