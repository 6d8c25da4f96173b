#!/usr/bin/env bash
# check-dashboards.sh [TOOL_DIR]: dashboards/*.json against the types of @grafana/schema 10 to 13, which are put into TOOL_DIR
# (default target/dashboard-schema) the first time. It needs node and npm.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
tool=${1:-$here/../target/dashboard-schema}
mkdir -p "$tool"
cp "$here"/dashboard-schema/* "$tool/"
cd "$tool"
# Again where the list of versions is another one.
if ! cmp --silent package.json installed.json; then
  npm install --silent --no-audit --no-fund --legacy-peer-deps >&2
  cp package.json installed.json
fi
node check.mjs "$here"/../dashboards/*.json
