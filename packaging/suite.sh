# suite.sh: packages of a suite of Debian that this machine does not run, downloaded and never installed. Sourced by servers.sh, nspawn.sh, container-bases.sh and try-kernels.sh.
# shellcheck shell=bash
#
# For private_apt whoever sources it sets $codename, the suite that this machine runs, and defines die WHAT LINE...

# The mirror this machine's own sources use for suite $1, so that a local mirror or a proxy goes on being used. Empty before the
# machine's first `apt-get update`.
# shellcheck disable=SC2016  # $(...) is apt's own format language
mirror() {
  apt-get indextargets --format '$(COMPONENT) $(CODENAME) $(REPO_URI)' 'Created-By: Packages' |
    awk -v codename="$1" '$1 == "main" && $2 == codename && !seen++ { print $3 }'
}

# Sets $apt: options that give apt lists, cache and sources of their own below $1 for suite $2; the machine's proxy settings still count.
private_apt() {
  local root=$1 from=$2 keyring=/usr/share/keyrings/debian-archive-keyring.gpg uri
  [ -r "$keyring" ] || die "$keyring is missing: it proves that packages are Debian's" "install it: apt-get install debian-archive-keyring"
  uri=$(mirror "${codename:?}")
  [ -n "$uri" ] || { apt-get -q update >&2 || true; uri=$(mirror "${codename:?}"); }
  [ -n "$uri" ] || die "no source for '$codename' with component main in this machine's apt configuration" \
                       "look at: apt-get indextargets 'Created-By: Packages'"
  mkdir -p "$root"/{lists/partial,cache/archives/partial,sources.d}
  printf 'deb [signed-by=%s] %s %s main\n' "$keyring" "$uri" "$from" >"$root/sources.list"
  : >"$root/status"
  # shellcheck disable=SC2034  # for the script that sources this
  apt=(-o Dir::Etc::SourceList="$root/sources.list" -o Dir::Etc::SourceParts="$root/sources.d"
       -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts="$root/sources.d"
       -o Dir::State::Lists="$root/lists" -o Dir::State::status="$root/status" -o Dir::Cache="$root/cache"
       -o APT::Update::Post-Invoke= -o APT::Update::Post-Invoke-Success= -o Acquire::Languages=none
       -o Acquire::Check-Valid-Until=false)  # a mirror frozen some weeks ago serves tests as well; signatures are still checked
}
