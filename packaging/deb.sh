#!/usr/bin/env bash
# deb.sh [PROFILE [REVISION [DIR]]]: both Debian packages of what target/PROFILE holds (release; debug for tests), in DIR (target/debian).
# Man pages and completions come from the programs themselves, so they are those of the same build; the licences of what is linked from its sources.
set -euo pipefail
cd "$(dirname "$0")/.."
profile=${1:-release} revision=${2:-1} into=${3:-target/debian}
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
packaging/third-party.sh >/dev/null
mkdir -p "$into"
for package in conntrack-exporter conntrack-actioner; do
  rm -f "$into/${package}"_*.deb
  CARGO_TARGET_DIR=$target "$cargo_deb" deb --quiet --no-build --strip "${fast[@]}" --profile "$named" --deb-revision "$revision" -p "$package" -o "$into/"
done
ls "$into"/*.deb
