#!/bin/sh
# cargo-tool.sh NAME VERSION: that program of crates.io below target/tools, if it is not there yet.
set -eu
cd "$(dirname "$0")/.."

test -x "target/tools/bin/$1" && exit 0
echo "installing $1 $2 from crates.io in target/tools (minutes)"
cargo install "$1" --version "$2" --locked --quiet --root target/tools
