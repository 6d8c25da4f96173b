# container-bases.sh: the images that packaging/Dockerfile begins with, made here under the names it gives them: no registry is asked. Sourced by
# try-container.sh.
# shellcheck shell=bash disable=SC2154  # $work, the directory of the script that sources this
#
# debian:12-slim is what debootstrap makes of Debian 12, without what the published one leaves out too. rust:VERSION-bookworm is the same with
# a C compiler and this machine's toolchain, whose version must be VERSION: of it what rustup's minimal profile has, and where the published image has it.

# shellcheck source=packaging/suite.sh
. packaging/suite.sh
readonly suite=bookworm

has_image() { engine image exists "docker.io/library/$1"; }

debian_slim() {
  local root=$work/slim mirror
  has_image "$1" && return
  echo "try-container: making $1 by debootstrap (once; some 60 MB are fetched)" >&2
  rm -rf "$root"
  mirror=$(mirror "$suite")
  debootstrap --variant=minbase "$suite" "$root" "${mirror:-http://deb.debian.org/debian/}" >"$root.log" 2>&1 || { tail -5 "$root.log" >&2; return 1; }
  rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,info,locale}/*
  printf 'path-exclude /usr/share/%s/*\n' doc man info locale >"$root/etc/dpkg/dpkg.cfg.d/docker"
  tar -C "$root" --one-file-system -c . | engine import --quiet --change 'CMD ["bash"]' - "docker.io/library/$1" >/dev/null
  rm -rf "$root"
}

rust_on_debian() {
  local sysroot version wanted into=$work/rust
  has_image "$1" && return
  sysroot=$(rustc --print sysroot)
  version=$(rustc -vV | sed -n 's/^release: //p')
  wanted=${1#rust:} wanted=${wanted%%-*}
  case $version in
    "$wanted" | "$wanted".*) ;;
    *) echo "try-container: the Dockerfile begins with $1, and rustc here is $version: put the one or the other right" >&2; return 1 ;;
  esac
  [ -e "$sysroot/lib/rustlib/components" ] || { echo "try-container: $sysroot was not installed by rustup, so what the minimal profile has of it is not known" >&2; return 1; }
  echo "try-container: making $1 of $2, gcc and $sysroot (once)" >&2
  rm -rf "$into"; mkdir -p "$into/toolchain"
  sed -n 's/^\(file\|dir\)://p' "$sysroot"/lib/rustlib/manifest-{rustc,cargo,rust-std}-"$(rustc -vV | sed -n 's/^host: //p')" |
    tar -C "$sysroot" -c --files-from=- | tar -C "$into/toolchain" -x
  cp "$(readlink -f /etc/ssl/certs/ca-certificates.crt)" "$into/"
  cat >"$into/Containerfile" <<CONTAINERFILE
FROM $2
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY toolchain /usr/local/rustup/toolchains/$version
ENV RUSTUP_HOME=/usr/local/rustup CARGO_HOME=/usr/local/cargo PATH=/usr/local/rustup/toolchains/$version/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
CONTAINERFILE
  engine build --quiet --pull=never --network host -t "docker.io/library/$1" "$into" >/dev/null
  rm -rf "$into"
}
