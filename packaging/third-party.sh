#!/usr/bin/env bash
# third-party.sh: the licences of what each program is linked with, in target/third-party/PROGRAM.txt.gz. Cargo says which crates those are, and
# their sources what their licences say; nothing is listed by hand. A crate whose sources hold no licence ends it.
set -euo pipefail
cd "$(dirname "$0")/.."
into=target/third-party
registry=${CARGO_HOME:-$HOME/.cargo}/registry/src
library=$(rustc --print sysroot)/share/doc/rust/COPYRIGHT-library.html
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The crates that are linked with package $1, with what else is given: NAME VERSION LICENCE, a line each. Macros are not in the program.
linked() {
  cargo tree --quiet --locked --package "$@" --target "$(rustc -vV | sed -n 's/^host: //p')" --edges normal,no-proc-macro --prefix none --no-dedupe --format '{p}|{l}' |
    sed -nE '/ \(\//!s/^([^ ]+) v([^ |]+)[^|]*\|(.*)$/\1 \2 \3/p' | sort -u
}

licences_of() {
  find "$1" -maxdepth 2 -type f \( -iname 'licen[sc]e*' -o -iname 'copying*' -o -iname 'unlicen[sc]e*' -o -iname 'notice*' -o -iname 'copyright*' \) | sort
}

# Each text once, below the crates that have it; texts that differ in white space alone are the same.
write() {
  local program=$1 crates=0 name version licence source file sum text
  shift
  rm -rf "${work:?}"/*
  mkdir "$work/known" "$work/texts" "$work/heads"
  while read -r name version licence; do
    source=$(find "$registry" -mindepth 2 -maxdepth 2 -name "$name-$version" -print -quit)
    [ -n "$source" ] || { echo "third-party: no sources of $name $version below $registry (cargo fetch --locked)" >&2; return 1; }
    crates=$((crates + 1))
    printf '%s %s: %s\n' "$name" "$version" "$licence" >>"$work/crates"
    licences_of "$source" >"$work/files"
    [ -s "$work/files" ] || { echo "third-party: $name $version ($licence) has no licence file in $source; the package may not be given to anybody without one" >&2; return 1; }
    while read -r file; do
      sum=$(tr -s '[:space:]' ' ' <"$file" | sha256sum | cut -d' ' -f1)
      if [ ! -e "$work/known/$sum" ]; then
        # Numbered as they come: their order is that of the crates.
        text=$(printf '%04d' "$(find "$work/texts" -type f | wc -l)")
        echo "$text" >"$work/known/$sum"
        cp "$file" "$work/texts/$text"
      fi
      printf '%s %s, %s\n' "$name" "$version" "${file#"$source"/}" >>"$work/heads/$(cat "$work/known/$sum")"
    done <"$work/files"
  done < <(linked "$@")
  [ "$crates" -gt 0 ] || { echo "third-party: cargo names no crate that $program is linked with" >&2; return 1; }
  [ -e "$library" ] || { echo "third-party: $library is missing, which says whose the Rust standard library is" >&2; return 1; }
  {
    printf '%s is linked with these crates of https://crates.io, under the licences that stand behind them, and with the Rust standard library:\n\n' "$program"
    cat "$work/crates"
    for text in "$work"/texts/*; do
      printf '\n%s\n' '--------------------------------------------------------------------------------'
      cat "$work/heads/${text##*/}"
      printf '\n'
      cat "$text"
    done
    printf '\n%s\n' '--------------------------------------------------------------------------------'
    sed -E 's/<[^>]*>//g; s/&lt;/</g; s/&gt;/>/g; s/&quot;/"/g; s/&#x27;/'"'"'/g; s/&amp;/\&/g' "$library" | cat -s
  } | gzip -9n >"$into/$program.txt.gz"
  echo "$into/$program.txt.gz: $crates crates, $(find "$work/texts" -type f | wc -l) texts"
}

mkdir -p "$into"
write conntrack-exporter conntrack-exporter --features conntrack-exporter/top
write conntrack-actioner conntrack-actioner
