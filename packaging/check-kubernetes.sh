#!/usr/bin/env bash
# check-kubernetes.sh: the manifest against Kubernetes' own schema (PyPI's kubernetes-validate carries it), and its policy by check-policy.
# Not part of make lint: 100 MB come from PyPI the first time. What it does in a cluster: docs/getting-started/kubernetes.md.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=target/tools/kubernetes
manifest=docs/getting-started/kubernetes.yaml
if [ ! -x "$venv/bin/kubernetes-validate" ]; then
  echo "check-kubernetes: installing kubernetes-validate from PyPI below $venv" >&2
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet kubernetes-validate
fi
"$venv/bin/kubernetes-validate" --strict "$manifest"
wrong=$(mktemp --suffix .yaml)
trap 'rm -f "$wrong"' EXIT
sed 's/hostNetwork: true/hostNetwrok: true/' "$manifest" >"$wrong"
if "$venv/bin/kubernetes-validate" --strict "$wrong" >/dev/null 2>&1; then
  echo "check-kubernetes: a misspelt key is not found, so this check says nothing" >&2
  exit 1
fi
# The policy as the container sees it.
sed -n '/^  policy.yaml: |/,/^---/{s/^    //p}' "$manifest" >"$wrong"
target/debug/conntrack-actioner check-policy "$wrong"
