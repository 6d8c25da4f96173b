# The one door. Each target installs what it lacks (Debian packages by apt, servers below target/) and says so.
# A fresh Debian 12 machine needs Rust, make, apt and root.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: $(shell sed -n 's/^\([a-z-]*\):.*/\1/p' $(firstword $(MAKEFILE_LIST)))

# What the tests look at the kernel with. None of these packages starts anything.
TOOLS := conntrack ipset iptables nftables iproute2 util-linux procps faketime strace
# Rust links with it.
COMPILER := gcc libc6-dev
CARGO := cargo
# conntrack-exporter top: no crate more, and not in a plain `cargo build`.
FEATURES := --features conntrack-exporter/top

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## both programs, as released, in target/release
	@packaging/need.sh $(COMPILER)
	$(CARGO) build --release --locked -p conntrack-exporter -p conntrack-actioner $(FEATURES)

man: ## man pages and shell completions of both programs, in target/man and target/completions
	@packaging/need.sh $(COMPILER)
	$(CARGO) build --quiet --locked -p conntrack-exporter -p conntrack-actioner
	@packaging/manual.sh

run: build ## both programs on this host, in dry run (ENFORCE=1 make run enforces)
	@packaging/need.sh iptables ipset
	@packaging/run.sh

run-stack: build ## the same with Prometheus and Alertmanager beside them, on ports of their own
	@packaging/need.sh iptables ipset
	@packaging/servers.sh >/dev/null
	@packaging/run.sh stack

demo: ## the article's attack, stopped before your eyes, in network namespaces; under two minutes
	@packaging/need.sh $(COMPILER) $(TOOLS)
	@packaging/servers.sh >/dev/null
	$(CARGO) build --locked -p conntrack-exporter -p conntrack-actioner -p tests
	@$(CARGO) run --quiet --locked -p tests --bin demo

# The longest wait for the kernel's clocks more than for CPUs: twice as many at once as there are CPUs. alerts/check.sh is one of them
# (tests/tests/prometheus.rs).
test: export RUST_TEST_THREADS ?= $(shell expr 2 \* $$(nproc))
test: ## all tests, on the real kernel in namespaces (root)
	@packaging/need.sh $(COMPILER) $(TOOLS)
	@packaging/servers.sh target/servers next >/dev/null
	$(CARGO) build --locked --workspace $(FEATURES)
	$(CARGO) test --locked --workspace $(FEATURES)

metrics: ## docs/metrics.md, written anew from what both programs say of themselves
	@packaging/need.sh $(COMPILER) $(TOOLS)
	$(CARGO) build --quiet --locked -p conntrack-exporter -p conntrack-actioner
	METRICS=write $(CARGO) test --quiet --locked -p tests --test metrics

pictures: ## docs/pictures, drawn anew from a real run, light and dark (node, npm, chromium; half a gigabyte the first time)
	@packaging/need.sh $(COMPILER) $(TOOLS) nodejs chromium fonts-dejavu-core
	@type npm >/dev/null 2>&1 || packaging/need.sh npm  # NodeSource's nodejs brings it, and conflicts with Debian's package
	@packaging/servers.sh >/dev/null
	mkdir -p docs/pictures
	DASHBOARD_SHOT=$$(packaging/pictures.sh) $(CARGO) test --quiet --locked -p tests --test pictures -- --ignored --nocapture

day: ## a day of modelled traffic, judged by the shipped rules and the neighbours'; writes docs/day.md (two minutes)
	@packaging/need.sh $(COMPILER) $(TOOLS)
	@packaging/servers.sh >/dev/null
	$(CARGO) run --quiet --locked -p tests --bin day

compare: ## the script everyone copies and conntrack-actioner, on the same attack
	@packaging/need.sh $(COMPILER) $(TOOLS)
	$(CARGO) test --quiet --locked -p tests --test neighbour -- --nocapture

# BENCH=short: a tenth of the size, in target/bench/short. TABLES="ban idle": only these, the others stay as they were measured.
bench: ## what reading, deleting and banning cost beside the neighbours; writes BENCHMARKS.md (half an hour; BENCH=short: minutes)
	@packaging/need.sh $(COMPILER) $(TOOLS) g++ git
	@packaging/neighbours.sh
	$(CARGO) build --quiet --release --locked -p conntrack-exporter -p conntrack-actioner
	$(CARGO) run --quiet --release --locked -p bench -- $(if $(filter short,$(BENCH)),--short) $(TABLES)

# PATHS=decide: only those whose name has the word; docs/hot-paths.md stays as it was.
bench-paths: ## what decoding, counting, encoding, deciding and storing cost by themselves, in time and in instructions; writes docs/hot-paths.md
	@packaging/need.sh $(COMPILER) valgrind
	$(CARGO) bench --quiet --locked -p bench --bench paths -- $(PATHS)
	$(if $(PATHS),,$(CARGO) bench --quiet --locked -p bench --bench paths -- document)

restore: build ## 65,536 bans in the kernel again after a reboot: under a second, by the program as released, on a quiet machine
	@packaging/need.sh $(TOOLS)
	PROGRAMS=$(CURDIR)/target/release $(CARGO) test --quiet --locked -p tests --test actioner -- --exact --nocapture \
	  again::bans_of_65536_are_in_the_kernel_again_at_once

soak-kill: build ## KILLS=1000 ends of a working actioner by SIGKILL, each followed by a look whether what it acknowledged holds
	@packaging/need.sh $(TOOLS)
	PROGRAMS=$(CURDIR)/target/release $(CARGO) test --quiet --locked -p tests --test actioner -- --ignored --exact --nocapture killed::soak

load: build ## 10,000 scrapes over 100 connections, with clients beside them that send slowly or never read, until their limits end them; memory over 50,000 of each program; 10,000 idle connections and 10,000 of TLS at both
	@packaging/need.sh $(TOOLS)
	PROGRAMS=$(CURDIR)/target/release $(CARGO) test --quiet --locked -p tests --test actioner -- --ignored --nocapture fire::
	PROGRAMS=$(CURDIR)/target/release $(CARGO) test --quiet --locked -p tests --test load -- --ignored --nocapture --test-threads 1

# FUZZ=webhook: that target alone. FUZZ_RUNS: executions of each; FUZZ_SECONDS: at most so long each (0: until the runs are done).
FUZZ = table sockets routes sets webhook policy matchers store audit accept query config
FUZZ_RUNS = 1000000
FUZZ_SECONDS = 0
# The largest input that is tried, in bytes.
FUZZ_LEN = 4096
# RUSTC_BOOTSTRAP: the sanitizer is an unstable flag of the stable compiler. What is found new stands in target/corpus until it is
# merged; what crashes in fuzz/artifacts.
CARGO_FUZZ = RUSTC_BOOTSTRAP=1 PATH="$(CURDIR)/target/tools/bin:$$PATH" $(CARGO) fuzz
FUZZ_BUILD = --fuzz-dir fuzz --target-dir target/fuzz

fuzz: ## hostile bytes for everything that reads some, by libFuzzer (FUZZ=webhook FUZZ_RUNS=10000000 FUZZ_SECONDS=600)
	@packaging/need.sh $(COMPILER) g++
	@packaging/cargo-tool.sh cargo-fuzz 0.13.2
	$(CARGO_FUZZ) build $(FUZZ_BUILD)
	@mkdir -p $(addprefix target/corpus/,$(FUZZ))
	set -e; $(foreach target,$(FUZZ),$(CARGO_FUZZ) run $(FUZZ_BUILD) $(target) target/corpus/$(target) fuzz/corpus/$(target) -- \
	  -runs=$(FUZZ_RUNS) -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=1024 -malloc_limit_mb=64 -max_len=$(FUZZ_LEN) -print_final_stats=1 $(FUZZ_ARGS);)

soak: ## both programs an hour under churn: memory, descriptors and threads stay (SOAK_SECONDS=600: ten minutes)
	@packaging/need.sh $(COMPILER) $(TOOLS)
	$(CARGO) test --quiet --locked -p tests --test actioner -- --ignored --exact --nocapture soak::an_hour_of_churn

soak-socketless: ## a thousand idle connections of every kind, judged for five minutes with the grace that is shipped
	@packaging/need.sh $(COMPILER) $(TOOLS)
	$(CARGO) test --quiet --locked -p tests --test socketless -- --ignored --exact --nocapture programs::soak

crowd: ## 200 honest clients and attackers of five kinds, ten minutes (CROWD_SECONDS=180: three)
	@packaging/need.sh $(COMPILER) $(TOOLS)
	$(CARGO) test --quiet --locked -p tests --test crowd -- --ignored --exact --nocapture a_mixed_crowd

test-libipset: ## the firewall's tests with the ipset crate as backend
	@packaging/need.sh $(TOOLS) libipset-dev libclang1-14 libclang-common-14-dev
	$(CARGO) test --locked -p conntrack-actioner --features libipset --test firewall

try-pages: ## docs/getting-started followed to the letter on a clean Debian 12 (PACKAGES=DIR with our .deb files); minutes the first time
	@packaging/need.sh $(COMPILER)
	$(CARGO) build --quiet --locked -p conntrack-exporter -p conntrack-actioner $(FEATURES)
	docs/getting-started/try.sh docs/getting-started/small-server.md docs/getting-started/prometheus-alertmanager.md docs/getting-started/behind-nat.md

deb: build ## both Debian packages, in target/debian, checked by lintian
	@packaging/need.sh dpkg-dev lintian
	@packaging/deb.sh release
	lintian --allow-root --fail-on error target/debian/*.deb

package-test: ## install, upgrade, reboot, remove, purge on a Debian 12 booted by systemd-nspawn (root; minutes)
	@packaging/need.sh $(COMPILER) dpkg-dev systemd-container debootstrap iproute2 procps
	$(CARGO) build --quiet --locked -p conntrack-exporter -p conntrack-actioner $(FEATURES)
	@packaging/deb.sh debug 1 target/package-test/old >/dev/null
	@packaging/deb.sh debug 2 target/package-test/new >/dev/null
	@packaging/package-test.sh target/package-test/old target/package-test/new

# KERNEL=5.10: that one alone. SCENES="guard full": these alone.
try-kernels: build ## our packages on Debian's kernels from 5.10 on, in virtual machines of 512 MB: the attack, AppArmor, missing modules (root; two hours without KVM)
	@packaging/need.sh $(COMPILER) dpkg-dev debootstrap qemu-system-x86 e2fsprogs
	@packaging/deb.sh release 1 target/try-kernels/debs >/dev/null
	@packaging/try-kernels.sh target/try-kernels/debs "$(KERNEL)" $(SCENES)

try-container: ## build packaging/Dockerfile by podman on base images made here, run both programs of it, ban from it (root; minutes)
	@packaging/need.sh podman buildah runc netavark jq debootstrap iproute2 iptables ipset procps
	@packaging/try-container.sh

check-units: ## systemd units and AppArmor profiles: exposure at most 1.5, and what systemd-analyze and apparmor_parser say
	@packaging/need.sh systemd apparmor
	@packaging/check-units.sh

check-dashboards: ## dashboards/*.json by the types of @grafana/schema, first and last minor version of Grafana 10 to 13 (node, npm)
	@packaging/need.sh nodejs
	@type npm >/dev/null 2>&1 || packaging/need.sh npm
	@packaging/check-dashboards.sh

check-kubernetes: ## the Kubernetes manifest by the schema, its policy by check-policy
	@packaging/need.sh $(COMPILER) python3 python3-venv
	$(CARGO) build --quiet --locked -p conntrack-actioner
	@packaging/check-kubernetes.sh

lint: check-units ## rustfmt, clippy with warnings as errors, rustdoc, shellcheck, units, no unsafe
	@packaging/need.sh $(COMPILER) shellcheck
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets $(FEATURES) -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps --quiet
	shellcheck packaging/*.sh packaging/in-vm/*.sh packaging/debian/*/p*inst packaging/debian/*/p*rm alerts/*.sh docs/getting-started/*.sh .ci/run
	@packaging/no-unsafe.sh

fmt: ## format the sources
	$(CARGO) fmt --all

CARGO_DENY = cargo-deny 0.20.2

# Not part of lint: cargo-deny takes minutes to build.
deny: ## licences, sources and banned crates of the dependencies (cargo-deny, minutes the first time)
	@packaging/need.sh $(COMPILER)
	@packaging/cargo-tool.sh $(CARGO_DENY)
	target/tools/bin/cargo-deny check bans licenses sources

# Not part of deny: the database is a git repository, on no registry, and what it says changes from day to day without us.
advisories: ## known vulnerabilities of the dependencies, by RustSec's database (DB=DIR: a clone of it, where GitHub is not reached)
	@packaging/need.sh $(COMPILER) git
	@packaging/cargo-tool.sh $(CARGO_DENY)
	packaging/advisories.sh $(DB)

clean: ## remove target/
	$(CARGO) clean
