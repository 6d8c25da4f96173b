#!/bin/sh
# cargo-fuzz below target/tools, if it is not there yet.
set -eu
cd "$(dirname "$0")/.."

VERSION=0.13.2

test -x target/tools/bin/cargo-fuzz && exit 0
echo "installing cargo-fuzz $VERSION in target/tools (a minute or two)"
cargo install cargo-fuzz --version "$VERSION" --locked --quiet --root target/tools
