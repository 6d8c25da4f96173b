#!/usr/bin/env bash
# deb.sh [PROFILE [REVISION]]: both Debian packages of what target/PROFILE holds (release; debug for tests), in target/debian.
# Man pages and completions come from the programs themselves, so they are those of the same build.
set -euo pipefail
cd "$(dirname "$0")/.."
profile=${1:-release} revision=${2:-1}
cargo_deb=target/tools/bin/cargo-deb
target=${CARGO_TARGET_DIR:-target}
if [ ! -x "$cargo_deb" ]; then
  echo "deb: installing cargo-deb from crates.io below target/tools (minutes, once)" >&2
  cargo install --quiet --locked cargo-deb --root target/tools
fi
fast=()
case $profile in
  release) named=release ;;
  debug) named=dev fast=(--fast) ;;
  *) echo "deb: a profile is release or debug, not '$profile'" >&2; exit 2 ;;
esac
PROFILE=$profile packaging/manual.sh >/dev/null
mkdir -p target/debian
for package in conntrack-exporter conntrack-actioner; do
  rm -f "target/debian/${package}"_*.deb
  CARGO_TARGET_DIR=$target "$cargo_deb" deb --quiet --no-build --strip "${fast[@]}" --profile "$named" --deb-revision "$revision" -p "$package" -o target/debian/
done
ls target/debian/*.deb
