# Hermes. `make help` lists the targets.
# SAN=1 builds with AddressSanitizer and UBSan into build/san; BUILD=DIR builds elsewhere.
SAN     ?= 0
ifeq ($(SAN),1)
BUILD   ?= build/san
else
BUILD   ?= build
endif
PREFIX  ?= /usr
VERSION := 0.1.0
PYTHON  ?= /usr/bin/python3

# Libraries, by pkg-config. Each program links what it uses: static archives and --as-needed see to it that only
# tunnel carries OpenSSL and nghttp2, and only config-sync (and hermesd -t) LMDB and libfyaml.
PKGS    := libevent_core libevent_extra libsodium libcurl libnghttp2 libssl libcrypto msgpack libsystemd libseccomp libcares jansson lmdb libfyaml libmd libnl-3.0 libnftables
CPPFLAGS += -D_GNU_SOURCE -I. -DHERMES_VERSION='"$(VERSION)"' $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
WARN    := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wwrite-strings \
           -Wvla -Wformat=2 -Werror
ifeq ($(SAN),1)
OPT     ?= -O1 -g1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined
LDFLAGS += -fsanitize=address,undefined
# libasan wraps crypt_r: as-needed would take libcrypt for unneeded
LDLIBS  += -Wl,--no-as-needed -lcrypt -Wl,--as-needed
else
OPT     ?= -O2 -g -fstack-protector-strong -D_FORTIFY_SOURCE=2
endif
CFLAGS  += -std=gnu11 $(OPT) $(WARN) -fPIE -pthread
LDFLAGS += -pie -pthread -Wl,--as-needed -Wl,-z,relro,-z,now
LDLIBS  += $(shell pkg-config --libs $(PKGS) 2>/dev/null) -lcrypt -lm

ROLES   := tun-bridge tunnel router policy telemetry config-sync controller keeper
DIRS    := ipc store supervisor $(ROLES:%=workers/%)
ARCHIVES = $(patsubst %,$(BUILD)/lib/%.a,$(ROLES) store ipc)
PROGRAMS = $(BUILD)/bin/hermesd $(BUILD)/bin/hermes-admin $(ROLES:%=$(BUILD)/libexec/hermes-%)
objects  = $(patsubst %.c,$(BUILD)/obj/%.o,$(filter-out $(2),$(wildcard $(1)/*.c)))

all: $(PROGRAMS)

# --- archives: everything of a folder but its main()
$(BUILD)/lib/ipc.a: $(call objects,ipc)
$(BUILD)/lib/store.a: $(call objects,store)
$(foreach r,$(ROLES),$(eval $(BUILD)/lib/$(r).a: $(call objects,workers/$(r),workers/$(r)/main.c)))
$(BUILD)/lib/hermesd.a: $(call objects,supervisor,supervisor/main.c $(wildcard supervisor/admin*.c))
$(BUILD)/lib/hermes-admin.a: $(call objects,supervisor,supervisor/admin_main.c $(filter-out $(wildcard supervisor/admin*.c),$(wildcard supervisor/*.c)))
$(BUILD)/lib/%.a:
	@mkdir -p $(@D); rm -f $@
	$(AR) rcs $@ $(filter %.o,$^)

# --- programs
LINK = @mkdir -p $(@D); echo "  link $@"; $(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(LDLIBS)
$(BUILD)/libexec/hermes-%: $(BUILD)/obj/workers/%/main.o $(BUILD)/lib/%.a $(BUILD)/lib/store.a $(BUILD)/lib/ipc.a
	$(LINK)
$(BUILD)/bin/hermesd: $(BUILD)/obj/supervisor/main.o $(BUILD)/lib/hermesd.a $(BUILD)/lib/store.a $(BUILD)/lib/ipc.a
	$(LINK)
$(BUILD)/bin/hermes-admin: $(BUILD)/obj/supervisor/admin_main.o $(BUILD)/lib/hermes-admin.a $(BUILD)/lib/keeper.a $(BUILD)/lib/store.a $(BUILD)/lib/ipc.a
	$(LINK)

$(BUILD)/obj/%.o: %.c Makefile
	@mkdir -p $(@D); echo "  cc $<"
	@$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<
-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)

# --- unit tests: tests/unit/test_MODULE.c, one cmocka program each, linked with whatever it uses
UNIT_TESTS = $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(wildcard tests/unit/test_*.c))
$(BUILD)/tests/test_%: $(BUILD)/obj/tests/unit/test_%.o $(BUILD)/lib/hermesd.a $(BUILD)/lib/hermes-admin.a $(ARCHIVES)
	@mkdir -p $(@D); echo "  link $@"
	@$(CC) $(LDFLAGS) -o $@ $< -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(LDLIBS) -lcmocka
$(BUILD)/tests/fake_worker: $(BUILD)/obj/tests/unit/fake_worker.o $(BUILD)/lib/store.a $(BUILD)/lib/ipc.a
	$(LINK)
unit-tests: $(UNIT_TESTS) $(BUILD)/tests/fake_worker netlab

# --- the link emulator of tests/netlab
$(BUILD)/tests/netlab/linkem: $(call objects,tests/netlab)
	$(LINK)
netlab: $(BUILD)/tests/netlab/linkem

# --- fuzz targets: tests/fuzz/fuzz_THING.c (libFuzzer); seeds in tests/fuzz/corpus/THING/
FUZZ_TARGETS = $(patsubst tests/fuzz/%.c,$(BUILD)/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))
$(BUILD)/fuzz/fuzz_%: $(BUILD)/obj/tests/fuzz/fuzz_%.o $(BUILD)/lib/hermesd.a $(BUILD)/lib/hermes-admin.a $(ARCHIVES)
	@mkdir -p $(@D); echo "  link $@"
	@$(CC) $(LDFLAGS) -fsanitize=fuzzer -o $@ $< -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(LDLIBS) -lhttp_parser
fuzz-targets: $(FUZZ_TARGETS)
fuzz:
	@$(MAKE) --no-print-directory fuzz-targets CC=clang BUILD=build/fuzz \
	  OPT='-O1 -g1 -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined' \
	  LDFLAGS='-pie -pthread -Wl,--as-needed -fsanitize=address,undefined'

# --- the commands of the README
# Debian packages that are missing, by group (packaging/deps.txt)
deps:
	@packaging/deps.sh build run demo test
check: deps
	@PYTHON=$(PYTHON) tests/run.sh
demo:
	@packaging/deps.sh build run demo
	@$(MAKE) --no-print-directory -j$(shell nproc) all
	@HERMES_BUILD=$(BUILD) tests/demo/demo.sh
demo-udp:
	@packaging/deps.sh build run demo-udp
	@$(MAKE) --no-print-directory -j$(shell nproc) all
	@HERMES_BUILD=$(BUILD) tests/demo/udp.sh
demo-ip:
	@packaging/deps.sh build run demo-ip
	@$(MAKE) --no-print-directory -j$(shell nproc) all
	@HERMES_BUILD=$(BUILD) tests/demo/ip.sh

demo-control:
	@packaging/deps.sh build run demo-ip
	@$(MAKE) --no-print-directory -j$(shell nproc) all netlab
	@HERMES_BUILD=$(BUILD) tests/demo/control.sh

# QUICK=1: fewer and shorter rounds. BENCH="link latency ...": some parts only.
BENCH_PROGRAMS = $(patsubst tests/bench/%.c,$(BUILD)/bench/%,$(wildcard tests/bench/*.c))
$(BUILD)/lib/bench.a: $(call objects,tests/bench/lib)
$(BUILD)/bench/%: $(BUILD)/obj/tests/bench/%.o $(BUILD)/lib/bench.a $(ARCHIVES)
	@mkdir -p $(@D); echo "  link $@"
	@$(CC) $(LDFLAGS) -o $@ $< -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(LDLIBS)
bench-programs: $(BENCH_PROGRAMS) netlab
bench:
	@packaging/deps.sh build run bench
	@$(MAKE) --no-print-directory -j$(shell nproc) all bench-programs
	@QUICK=$(QUICK) HERMES_BUILD=$(BUILD) $(PYTHON) tests/bench/run.py $(BENCH)

install: all
	install -D -m 755 $(BUILD)/bin/hermesd $(DESTDIR)$(PREFIX)/sbin/hermesd
	install -D -m 755 $(BUILD)/bin/hermes-admin $(DESTDIR)$(PREFIX)/bin/hermes-admin
	install -d $(DESTDIR)$(PREFIX)/libexec/hermes
	install -m 755 $(ROLES:%=$(BUILD)/libexec/hermes-%) $(DESTDIR)$(PREFIX)/libexec/hermes/
	@set -e; for page in $(wildcard packaging/man/*.[1-8]); do \
	  install -D -m 644 $$page $(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/$${page##*/}; done
	@set -e; for f in $(wildcard packaging/completions/*.bash); do n=$${f##*/}; \
	  install -D -m 644 $$f $(DESTDIR)$(PREFIX)/share/bash-completion/completions/$${n%.bash}; done
	@set -e; for f in $(wildcard packaging/examples/*); do \
	  install -D -m 644 $$f $(DESTDIR)$(PREFIX)/share/doc/hermes/examples/$${f##*/}; done
	@set -e; for f in $(wildcard packaging/schema/*); do \
	  install -D -m 644 $$f $(DESTDIR)$(PREFIX)/share/hermes/schema/$${f##*/}; done
	@set -e; for f in $(wildcard packaging/*.service packaging/*.socket); do \
	  install -D -m 644 $$f $(DESTDIR)/lib/systemd/system/$${f##*/}; done
	install -D -m 644 packaging/hermes.sysusers $(DESTDIR)/usr/lib/sysusers.d/hermes.conf
	install -D -m 644 packaging/hermes.tmpfiles $(DESTDIR)/usr/lib/tmpfiles.d/hermes.conf

# A Debian package of this release: build/hermes_VERSION_ARCH.deb
deb:
	@packaging/deps.sh build deb
	@$(MAKE) --no-print-directory -j$(shell nproc) all
	@rm -rf $(BUILD)/deb
	@umask 022; $(MAKE) --no-print-directory -s install PREFIX=/usr DESTDIR=$(abspath $(BUILD))/deb/debian/hermes
	@packaging/debian/build.sh $(BUILD) $(VERSION)
# lintian, and the package in a container that boots systemd (root; fetches a Debian into build/package the first time)
check-package: deb
	@packaging/deps.sh package
	@HERMES_BUILD=$(BUILD) tests/package.sh $(BUILD)/hermes_$(VERSION)_*.deb

help:
	@echo "make            build into $(BUILD)/bin and $(BUILD)/libexec (SAN=1: with sanitizers, into build/san)"
	@echo "make demo       the main job, step by step, on real programs"
	@echo "make demo-udp   a UDP video over a path that loses packets, direct and through two nodes (root)"
	@echo "make demo-ip    TUN devices: two users, the same address, different servers, and a move (root)"
	@echo "make demo-control  a controller and three nodes: objectives, canaries, rollback, a new binary under load (root)"
	@echo "make check      unit tests, fuzz targets and system tests under sanitizers"
	@echo "make bench      speed and memory beside nghttpx, HAProxy, nginx and VPNs (QUICK=1: shorter)"
	@echo "make deps       install the Debian packages that are missing"
	@echo "make install    DESTDIR= PREFIX=$(PREFIX)"
	@echo "make deb        $(BUILD)/hermes_$(VERSION)_ARCH.deb"
	@echo "make check-package  the package: lintian, and a container that boots systemd (root, network)"
	@echo "make clean"

clean:
	rm -rf build

.PHONY: all clean unit-tests netlab fuzz fuzz-targets help deps check demo demo-udp demo-ip demo-control bench bench-programs install deb check-package
.SECONDARY:
