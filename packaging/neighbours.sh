#!/usr/bin/env bash
# neighbours.sh: what `make bench` measures beside us, below target/servers/neighbours: Debian's node_exporter and fail2ban, downloaded and
# unpacked, never installed, and hiveco/conntrack_exporter, built of its source with Debian's libraries. Nothing is started. What cannot be
# had is said, and left out of the report.
set -euo pipefail

into=$PWD/target/servers/neighbours
# Its repository: a clone of your own serves where GitHub is not to be reached.
source=${HIVECO_SOURCE:-https://github.com/hiveco/conntrack_exporter}
readonly commit=73606adc

say() { echo "neighbours: $*" >&2; }

# Downloads Debian packages $2... and unpacks them into $1.
unpack() {
  local to=$1 work package; shift
  work=$(mktemp -d)
  for package; do
    say "fetching $package"
    (cd "$work" && { apt-get -q -o APT::Sandbox::User=root download "$package" >&2 ||
      { apt-get -q update >&2 && apt-get -q -o APT::Sandbox::User=root download "$package" >&2; }; }) ||
      { say "$package cannot be had: the report goes without it"; continue; }
    dpkg -x "$work/$package"_*.deb "$to"
  done
  rm -rf "$work"
}

# Its own build is Bazel's, which downloads a compiler's worth of rules and the newest libraries; the same sources need no more than this.
hiveco() {
  local work=$into/hiveco libraries
  type g++ >/dev/null 2>&1 || { say "no g++: the report goes without hiveco/conntrack_exporter"; return; }
  libraries=$work/usr/lib/$(g++ -print-multiarch)
  mkdir -p "$work"
  git init -q "$work/source"
  git -C "$work/source" fetch -q "$source" HEAD >&2 ||
    { say "$source cannot be had (HIVECO_SOURCE=DIR names a clone): the report goes without it"; return; }
  git -C "$work/source" checkout -q FETCH_HEAD
  [[ $(git -C "$work/source" rev-parse HEAD) == $commit* ]] || say "hiveco/conntrack_exporter is newer than $commit, which this was written for"
  unpack "$work" prometheus-cpp-dev libprometheus-cpp-core1.0 libprometheus-cpp-pull1.0 libcivetweb1 libnetfilter-conntrack-dev \
    libnetfilter-conntrack3 libnfnetlink-dev libnfnetlink0 argagg-dev
  # --disable-new-dtags: RPATH, which serves the libraries' own needs too.
  g++ -O2 -std=c++17 -I"$work/usr/include" -o "$work/conntrack_exporter" "$work"/source/src/*.cc -L"$libraries" -Wl,--disable-new-dtags \
    -Wl,-rpath-link,"$libraries" -Wl,-rpath,"$libraries" -lprometheus-cpp-pull -lprometheus-cpp-core -lnetfilter_conntrack >&2 ||
    say "hiveco/conntrack_exporter does not build here: the report goes without it"
}

mkdir -p "$into"
if [ ! -x "$into/usr/bin/prometheus-node-exporter" ] || [ ! -d "$into/usr/lib/python3/dist-packages/fail2ban" ]; then
  unpack "$into" prometheus-node-exporter fail2ban
fi
[ -x "$into/hiveco/conntrack_exporter" ] || hiveco
