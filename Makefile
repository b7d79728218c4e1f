# make help lists the targets.

PREFIX     ?= /usr/local
BINDIR     ?= $(PREFIX)/bin
LIBDIR     ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
MANDIR     ?= $(PREFIX)/share/man
DOCDIR     ?= $(PREFIX)/share/doc/tlsd
BINDINGDIR ?= $(PREFIX)/share/tlsd/bindings
UNITDIR    ?= $(PREFIX)/lib/systemd
DESTDIR    ?=
# "make build" puts the programs into this folder. "make install" takes them from there.
BIN        ?= bin
GO         ?= go
CC         ?= cc
CFLAGS     ?= -O2 -g
LDFLAGS    ?=
# Without VERSION, the programs have the version of internal/version. Without COMMIT, they have the
# commit of the Git folder.
VERSION    ?=
COMMIT     ?=
# The choices are pie and exe. With pie, processes do not share relocated data, so each worker needs
# about 0.7 MiB more memory than with exe. With exe, an attacker knows the address of tlsd's code.
BUILDMODE  ?= pie

WARNINGS   = -std=c11 -Wall -Wextra -Wpedantic -Werror
PLUGIN_SRC = $(wildcard cmd/tlsshim/plugin/*.c)
PLUGIN_HDR = $(wildcard cmd/tlsshim/plugin/*.h)
DOM_SRC    = $(wildcard test/plugin/domhost/src/*.c)
DOM_HDR    = $(wildcard test/plugin/domhost/src/*.h)

export CGO_ENABLED ?= 0

.PHONY: help build demo test check race stress fuzz bench bench-quick bench-growth bench-sessions \
	bench-text bench-go faultssl faults scan services libssl-matrix arm64 kernels soak deps-build \
	deps-test deps-services deps-scan deps-matrix deps-arm64 deps-kernels deps-bench \
	deps-systemd deps-packages deps-containers deps-monitoring packages test-packages \
	test-containers test-monitoring test-systemd pages recordings install check-quick \
	deps-check uninstall clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 16

build: deps-build $(BIN)/tlsd $(BIN)/tlsshim $(BIN)/TlsPlugin.so $(BIN)/domhost ## build everything into bin/

# Two builds of one source are equal, because the programs do not have the names of the folders of
# the build: see -trimpath and SAME_PATHS.
GO_LDFLAGS  = -bindnow $(if $(STRIP),-s -w) \
	$(if $(VERSION),-X tlsd/internal/version.Version=$(VERSION)) \
	$(if $(COMMIT),-X tlsd/internal/version.commit=$(COMMIT))
SAME_PATHS  = -ffile-prefix-map=$(CURDIR)=.
PLUGIN_MAP  = cmd/tlsshim/plugin/tlsplugin.map
PLUGIN_LINK = -shared -Wl,-soname,TlsPlugin.so,--version-script=$(PLUGIN_MAP),-z,defs,-z,relro,-z,now

$(BIN)/tlsd $(BIN)/tlsshim: $(BIN)/%: FORCE
	$(GO) build -trimpath -buildmode=$(BUILDMODE) -ldflags '$(GO_LDFLAGS)' -o $@ ./cmd/$*

$(BIN)/TlsPlugin.so: $(PLUGIN_SRC) $(PLUGIN_HDR) $(PLUGIN_MAP)
	@mkdir -p $(BIN)
	$(CC) $(WARNINGS) $(CFLAGS) $(SAME_PATHS) -fPIC -fvisibility=hidden $(LDFLAGS) $(PLUGIN_LINK) -o $@ $(PLUGIN_SRC) -pthread

$(BIN)/domhost: $(DOM_SRC) $(DOM_HDR)
	@mkdir -p $(BIN)
	$(CC) $(WARNINGS) $(CFLAGS) $(SAME_PATHS) $(LDFLAGS) -o $@ $(DOM_SRC) -ldl -lm

demo: build ## a server script and a client script talk TLS through the plugin and a private tlsd
	@sh examples/demo.sh

$(BIN)/host: internal/testhost/src/host.c cmd/tlsshim/plugin/tlsplugin.h
	@mkdir -p $(BIN)
	$(CC) $(WARNINGS) $(CFLAGS) -Icmd/tlsshim/plugin -o $@ $< -ldl -pthread

# The tests take the programs from the folder TLSD_TEST_BIN, and do not build them again.
export TLSD_TEST_BIN
test race stress: TLSD_TEST_BIN = $(abspath $(BIN))
test race stress: build $(BIN)/host

# test/run is built and then executed, because go run would print a line of its own after the count
# of the tests.
RUN_TESTS = $(GO) build -o $(BIN)/run ./test/run && TLSD_TEST_STRICT=1 $(BIN)/run

test: deps-test check-quick ## install the tools of the tests and run all tests; the last line counts them
	@$(RUN_TESTS) plain race

FUZZTIME ?= 60s
fuzz: deps-test ## every fuzz target for FUZZTIME (60s); failing inputs are kept for the tests
	$(GO) run ./test/run/fuzz -time $(FUZZTIME)

# "make test" runs the suite race, too. After it, "make race SUITES=race-conformance" is enough.
SUITES ?= race race-conformance
race: deps-test ## run the tests of concurrent code, and the conformance tests without a daemon, under the race detector
	@$(RUN_TESTS) $(SUITES)

PKG  ?= ./...
N    ?= 20
HOGS ?= 8
stress: deps-test ## run the tests of PKG (./...) N times (20), shuffled, beside HOGS (8) busy threads; RUN=REGEXP, RACE=1
	$(GO) run ./test/run/stress -n $(N) -hogs $(HOGS) $(if $(RACE),-race) $(if $(RUN),-run '$(RUN)') $(PKG)

check-quick: ## formatting and vet
	@sh scripts/check.sh quick

check: deps-check ## look for mistakes in the sources: linters for Go, C and shell, and spelling
	@sh scripts/check.sh all

bench: deps-bench build ## compare tlsd with OpenSSL in-process and three proxies, measure the hops of a message and the growth of costs; up to 14 minutes
	$(GO) run ./bench

bench-quick: deps-bench build ## the comparison and the cost of each hop in under two minutes
	$(GO) run ./bench -quick

bench-growth: deps-bench build ## only how the cost grows with sizes, connections and sessions; about three minutes
	$(GO) run ./bench -only growth,busy,idle -rounds 1 -json bench/out/growth.json

SESSIONS ?= 500
bench-sessions: deps-bench build ## the cost of SESSIONS (500) idle sessions, and of their start; as root; a minute
	$(GO) run ./bench -only growth-sessions-1-,growth-sessions-$(SESSIONS)- -sessions $(SESSIONS) \
		-rounds 1 -json bench/out/sessions.json

RESULTS ?= bench/out/bench.json
bench-text: ## the tables and charts of BENCHMARKS.md from RESULTS, by default the file of the latest make bench
	$(GO) run ./bench -from $(RESULTS) -json bench/results.json -text BENCHMARKS.md -charts bench/charts

BENCHTIME ?= 1s
bench-go: ## the Go benchmarks of each layer, with their allocations; about a minute
	$(GO) test -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) ./rpc/... ./session ./openssl

faultssl: deps-build ## build bin/faultssl.so, a libssl that goes wrong on purpose (test/faults)
	@mkdir -p bin
	$(GO) run ./test/faults bin/faultssl.so

DURATION ?= 10m
soak: ## everything at random for DURATION (10m); fails if anything is wrong or left over
	$(GO) test -count=1 -v -timeout 0 ./test/soak -duration=$(DURATION) $(if $(SEED),-seed=$(SEED))

scan: deps-scan ## let sslscan and testssl.sh look at our server; about two minutes
	TLSD_TEST_STRICT=1 $(GO) test -count=1 -tags scan -timeout 30m ./test/interop/scan

services: deps-services ## tlsd against PostgreSQL, postfix, dovecot, redis, mosquitto, nginx and Java; installs these
	TLSD_TEST_POSTGRESQL="$$(sh scripts/postgresql.sh)" TLSD_TEST_SERVICES=1 $(GO) test -count=1 -timeout 10m ./test/interop/services

faults: deps-test ## each kind of fault, in each function of libssl that tlsd calls, in each scenario; some minutes
	TLSD_TEST_STRICT=1 $(GO) test -count=1 -timeout 60m ./test/faults -long

libssl-matrix: deps-matrix ## the suites against OpenSSL 1.1.1, 3.0, 3.5, 3.6 and 4.0, from Debian's packages; about 8 minutes
	@sh scripts/libssl-matrix.sh

kernels: deps-kernels ## tests that depend on the kernel, under the kernels of Debian 12 and 13, in qemu; long
	@sh scripts/kernel.sh

arm64: deps-arm64 ## a part of the suites for linux/arm64, under qemu
	@sh scripts/arm64.sh

deps-scan:
	@sh scripts/deps.sh scan

deps-matrix:
	@sh scripts/deps.sh matrix || echo "libssl-matrix: not all packages could be installed; going on without them" >&2

deps-kernels:
	@sh scripts/deps.sh kernels || echo "kernels: not all packages could be installed; going on without them" >&2

deps-arm64:
	@sh scripts/deps.sh arm64 || echo "arm64: not all packages could be installed; going on without them" >&2

deps-check:
	@sh scripts/deps.sh check

deps-bench:
	@sh scripts/deps.sh bench

deps-build:
	@sh scripts/deps.sh build

deps-services:
	@sh scripts/deps.sh services

deps-test:
	@sh scripts/deps.sh test

$(BIN)/NOTICES: go.mod packaging/notices/main.go
	@mkdir -p $(BIN)
	$(GO) run ./packaging/notices >$@.new
	@mv $@.new $@

BUILT = $(BIN)/tlsd $(BIN)/tlsshim $(BIN)/TlsPlugin.so
DOCS  = README.md SECURITY.md proto.md CHANGELOG.md LICENSE packaging/tlsd.toml \
	examples/policy.toml packaging/prometheus/tlsd.rules.yml \
	packaging/grafana/tlsd-dashboard.json packaging/logrotate/tlsd.logrotate
# Files below PREFIX/share, in the folders where shells look for completions.
COMPLETIONS = bash-completion/completions/tlsd bash-completion/completions/tlsshim \
	zsh/site-functions/_tlsd zsh/site-functions/_tlsshim fish/vendor_completions.d/tlsd.fish fish/vendor_completions.d/tlsshim.fish
UNITS = system/tlsd.service system/tlsd.socket user/tlsd.service user/tlsd.socket
PAGES = $(wildcard packaging/man/*.[1-8])
GUIDES = $(wildcard docs/*.md)
BINDINGS = $(wildcard bindings/*)

install: ## install what make build has made; builds and downloads nothing; takes DESTDIR, PREFIX, LIBDIR, MANDIR
	@for file in $(BUILT); do test -e $$file || { echo "make install: there is no $$file; run make build first" >&2; exit 1; }; done
	install -d $(DESTDIR)$(BINDIR) $(DESTDIR)$(LIBDIR)/tlsd $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(INCLUDEDIR) $(DESTDIR)$(DOCDIR) \
		$(addprefix $(DESTDIR)$(UNITDIR)/,$(sort $(dir $(UNITS))))
	install -m 755 $(BIN)/tlsd $(BIN)/tlsshim $(DESTDIR)$(BINDIR)
	install -m 644 $(BIN)/TlsPlugin.so $(DESTDIR)$(LIBDIR)/tlsd
	install -m 644 cmd/tlsshim/plugin/tlsplugin.h $(DESTDIR)$(INCLUDEDIR)
	install -m 644 $(DOCS) $(DESTDIR)$(DOCDIR)
	install -d $(DESTDIR)$(DOCDIR)/docs
	install -m 644 $(GUIDES) $(DESTDIR)$(DOCDIR)/docs
	install -d $(DESTDIR)$(BINDINGDIR)
	install -m 644 $(BINDINGS) $(DESTDIR)$(BINDINGDIR)
	sed -e 's|@LIBDIR@|$(LIBDIR)|; s|@INCLUDEDIR@|$(INCLUDEDIR)|' -e "s|@VERSION@|$$(sh scripts/version.sh $(VERSION))|" \
		packaging/tlsd.pc.in >$(DESTDIR)$(LIBDIR)/pkgconfig/tlsd.pc
	for page in $(PAGES); do install -D -m 644 $$page $(DESTDIR)$(MANDIR)/man$${page##*.}/$${page##*/} || exit; done
	for file in $(COMPLETIONS); do name=$${file##*/}; case $$file in bash*) name=$$name.bash ;; esac; \
		install -D -m 644 packaging/completions/$$name $(DESTDIR)$(PREFIX)/share/$$file || exit; done
	for unit in $(UNITS); do sed 's|/usr/bin/tlsd|$(BINDIR)/tlsd|' packaging/systemd/$$unit >$(DESTDIR)$(UNITDIR)/$$unit || exit; done
	chmod 644 $(DESTDIR)$(LIBDIR)/pkgconfig/tlsd.pc $(addprefix $(DESTDIR)$(UNITDIR)/,$(UNITS))

recordings: build ## run the scenes of README.md's pictures, and draw the pictures anew
	$(GO) run ./docs/recordings

pages: ## write anew what is generated: parts of pages and completions, the seccomp filter
	$(GO) test -count=1 -run 'Page|Sample|Completion|GeneratedProgram' ./cmd/tlsd ./cmd/tlsshim \
		./test/packaging ./internal/confine -update

packages: ## the .deb and the .rpm, into bin/packages
	sh packaging/packages.sh

deps-monitoring:
	@sh scripts/deps.sh monitoring

test-monitoring: deps-monitoring ## metrics, alert rules and dashboard with a real Prometheus, which it installs; half a minute
	TLSD_TEST_PROMETHEUS=1 $(GO) test -count=1 -timeout 10m -run 'Metrics|Exporter|Rules|Prometheus' ./test/e2e/admin

test-packages: deps-packages ## the .deb and the .rpm in root file systems of Debian, as root; some minutes
	$(GO) test -count=1 -v -tags packages -timeout 30m -run 'Packages|Pages|OtherShells|TwoBuilds' ./test/packaging

deps-packages:
	@sh scripts/deps.sh packages

test-containers: deps-containers build ## the image of the Containerfile, and a daemon and scripts in containers, by podman, as root; 2 minutes
	$(GO) test -count=1 -v -tags containers -timeout 30m -run 'Containers' ./test/packaging

deps-containers:
	@sh scripts/deps.sh containers

test-systemd: deps-systemd build ## the units under a real systemd in namespaces of its own, as root; half a minute
	$(GO) test -count=1 -v -tags systemd -timeout 10m -run 'Unit|Service|Settings|User' ./test/packaging

deps-systemd:
	@sh scripts/deps.sh systemd

uninstall: ## remove what make install has installed; takes the same variables
	rm -f $(DESTDIR)$(BINDIR)/tlsd $(DESTDIR)$(BINDIR)/tlsshim $(DESTDIR)$(LIBDIR)/tlsd/TlsPlugin.so
	rm -f $(DESTDIR)$(LIBDIR)/pkgconfig/tlsd.pc $(DESTDIR)$(INCLUDEDIR)/tlsplugin.h
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/share/,$(COMPLETIONS)) $(foreach page,$(PAGES),$(DESTDIR)$(MANDIR)/man*/$(notdir $(page)))
	rm -f $(addprefix $(DESTDIR)$(DOCDIR)/,$(notdir $(DOCS)) $(GUIDES)) $(addprefix $(DESTDIR)$(UNITDIR)/,$(UNITS))
	rm -f $(addprefix $(DESTDIR)$(BINDINGDIR)/,$(notdir $(BINDINGS)))
	-rmdir $(DESTDIR)$(LIBDIR)/tlsd $(DESTDIR)$(DOCDIR)/docs $(DESTDIR)$(DOCDIR) $(DESTDIR)$(BINDINGDIR) 2>/dev/null

clean: ## remove bin/
	rm -rf bin

FORCE:
