#!/usr/bin/env bash
# advisories.sh [DB]: asks RustSec's database about every crate of both lock files, the programs' and the fuzz targets'. DB is a clone of it or a
# bare repository; without one it is fetched from GitHub. Exit 1 where something is known against a crate.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ $# -gt 0 ]; then
  # What deny.toml names is fetched from the copy: git is told so for this call alone.
  GIT_CONFIG_COUNT=2 GIT_CONFIG_KEY_0=url.file://$(realpath "$1").insteadOf GIT_CONFIG_VALUE_0=https://github.com/rustsec/advisory-db
  GIT_CONFIG_KEY_1=safe.directory GIT_CONFIG_VALUE_1='*'
  export GIT_CONFIG_COUNT GIT_CONFIG_KEY_0 GIT_CONFIG_VALUE_0 GIT_CONFIG_KEY_1 GIT_CONFIG_VALUE_1
fi
for workspace in . fuzz; do
  echo "advisories: $workspace/Cargo.lock"
  target/tools/bin/cargo-deny --locked --config deny.toml --manifest-path "$workspace/Cargo.toml" check advisories
done
git -C target/advisory-db/advisory-db-* log -1 --format='advisories: by the database of %cs, %H'
