#!/usr/bin/env bash
# pictures.sh [TOOL_DIR]: makes the tool that draws dashboards ready in TOOL_DIR (default target/dashboard-shot), and prints its path.
# It needs node, npm and chromium, and half a gigabyte for Grafana's own components the first time.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
tool=${1:-$here/../target/dashboard-shot}
mkdir -p "$tool/www"
cp "$here"/dashboard-shot/* "$tool/"
cd "$tool"
if [ ! -d node_modules/@grafana/ui ]; then
  npm install --legacy-peer-deps >&2
  # Some npm run no package's install script unless told so.
  (cd node_modules/esbuild && node install.js) >&2
fi
node build.mjs >&2
pwd
