#!/bin/sh
# cargo-deny below target/tools, if it is not there yet.
set -eu
cd "$(dirname "$0")/.."

VERSION=0.20.2

test -x target/tools/bin/cargo-deny && exit 0
echo "installing cargo-deny $VERSION from crates.io in target/tools (minutes)"
cargo install cargo-deny --version "$VERSION" --locked --quiet --root target/tools
