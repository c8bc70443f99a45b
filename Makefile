# vpool: one non-recursive Makefile. `make help` lists the targets.
#
# Sources are found by folder: a new .c file needs no line here. Flavours keep apart in
# build/<flavour>/ so that switching costs nothing.

comma := ,
FLAVOUR ?= release
PREFIX  ?= /usr/local
DESTDIR ?=
CC      ?= gcc
B       := build/$(FLAVOUR)
VERSION := 0.1.0
PKGS    := liburing libisal jansson libconfig blkid libnbd

ENGINE_DIRS := base io raid pool thin volumes migrate ublk nbd vhost control
TOOLS       := $(patsubst tools/%/,%,$(wildcard tools/*/))

ENGINE_SRC := $(foreach d,$(ENGINE_DIRS),$(wildcard $(d)/*.c)) $(foreach d,$(ENGINE_DIRS),$(wildcard $(d)/*.S))
LIB_SRC    := $(wildcard lib/*.c)
TESTLIB_SRC:= $(wildcard tests/lib/*.c)
UNIT_SRC   := $(wildcard tests/unit/*/test_*.c)
SIM_SRC    := $(wildcard tests/sim/*.c)
BENCH_SRC  := $(wildcard tests/bench/*.c)
FUZZ_SRC   := $(wildcard tests/fuzz/fz_*.c)
FUZZ_LIB   := $(filter-out $(FUZZ_SRC),$(wildcard tests/fuzz/*.c))
HELPER_SRC := $(wildcard tests/integration/*.c)

obj = $(patsubst %,$(B)/%.o,$(1))

WARN := -Wall -Wextra -Wshadow -Wvla -Wstrict-prototypes -Wmissing-prototypes -Wconversion \
        -Wno-sign-conversion -Wpointer-arith -Wundef -Wwrite-strings
HARDEN := -fPIE -fstack-protector-strong -fstack-clash-protection
PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS))
PKG_LIBS   := $(shell pkg-config --libs $(PKGS))
CPPFLAGS += -I. -D_GNU_SOURCE -DVPOOL_VERSION='"$(VERSION)"' $(PKG_CFLAGS)
CFLAGS   ?=
BASE_CFLAGS := -std=gnu17 -g -fno-strict-aliasing -pthread $(WARN) $(HARDEN)
BASE_LDFLAGS := -pthread -pie -Wl,--as-needed -Wl,-z,relro,-z,now,-z,noexecstack

CFLAGS_release := -O2 -D_FORTIFY_SOURCE=2
CFLAGS_debug   := -O0 -fno-omit-frame-pointer
CFLAGS_asan    := -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
CFLAGS_tsan    := -O1 -fno-omit-frame-pointer -fsanitize=thread
CFLAGS_cov     := -O0 --coverage
CFLAGS_fuzz    := -O1 -fno-omit-frame-pointer -fsanitize=address,undefined,fuzzer-no-link -fno-sanitize-recover=all
ifeq ($(FLAVOUR),fuzz)
CC := clang-14
endif
ifeq ($(filter $(FLAVOUR),release debug asan tsan cov fuzz),)
$(error FLAVOUR is one of release debug asan tsan cov fuzz, not '$(FLAVOUR)')
endif
CPPFLAGS += $(if $(filter release,$(FLAVOUR)),,-DVPOOL_CHECKED)
ALL_CFLAGS  := $(BASE_CFLAGS) $(CFLAGS_$(FLAVOUR)) $(CFLAGS)
ALL_LDFLAGS := $(BASE_LDFLAGS) $(filter -fsanitize=% --coverage,$(subst -fsanitize=address$(comma)undefined$(comma)fuzzer-no-link,-fsanitize=address$(comma)undefined,$(CFLAGS_$(FLAVOUR)))) $(LDFLAGS)


ifeq ($(V),1)
Q :=
say = @:
else
Q := @
say = @printf '  %-7s %s\n'
endif

TOOL_BINS  := $(patsubst %,$(B)/%,$(TOOLS))
UNIT_BINS  := $(patsubst %.c,$(B)/%,$(UNIT_SRC))
BENCH_BINS := $(patsubst %.c,$(B)/%,$(BENCH_SRC))
HELPER_BINS:= $(patsubst %.c,$(B)/%,$(HELPER_SRC))
FUZZ_BINS  := $(patsubst %.c,$(B)/%,$(FUZZ_SRC))
SIM_BIN    := $(if $(SIM_SRC),$(B)/tests/sim/sim)
# What a flavour is for: a program of one thread has no races, and clang's flavour only fuzzes.
UNIT_RUN   := $(UNIT_BINS)
TEST_BINS   = $(UNIT_RUN) $(SIM_BIN) $(BENCH_BINS) $(HELPER_BINS) $(FUZZ_BINS)
ifeq ($(FLAVOUR),tsan)
UNIT_RUN   := $(patsubst %.c,$(B)/%,$(shell grep -l 'threads: yes' $(UNIT_SRC)))
TEST_BINS   = $(UNIT_RUN) $(BENCH_BINS) $(HELPER_BINS)
else ifeq ($(FLAVOUR),fuzz)
TEST_BINS   = $(FUZZ_BINS)
endif

.PHONY: all help tests check unit sim soak tidy bench bench-vm fuzz install clean format
all: $(TOOL_BINS) $(if $(LIB_SRC),$(B)/libvpool.so.0 $(B)/libvpool.a)

help:
	@sed -n 's/^## //p' Makefile

## make [FLAVOUR=release|debug|asan|tsan|fuzz|cov] [V=1]   build daemon, tools and library
## make tests       build the test programs that the flavour is for: all, but for tsan and fuzz
## make unit        build and run the unit tests
## make sim         build and run the simulator as CI does
## make soak        hours of it: kills and power cuts on real kernels, integration tests from many seeds (tests/lib/soak)
## make tidy        format, layers, banned calls, sizes, marks of what yields, names that lead nowhere
## make format      rewrite the sources with clang-format
## make bench       compare with the peers on this machine
## make bench-vm    compare ublk devices with their peers in the test machine (tests/vm/bench)
## make fuzz FLAVOUR=fuzz [TIME=60]   run every fuzz target for TIME seconds
## make check       everything, as CI does (./check)
## make install DESTDIR= PREFIX=

$(B)/%.c.o: %.c
	@mkdir -p $(@D)
	$(say) CC $<
	$(Q)$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

$(B)/%.S.o: %.S
	@mkdir -p $(@D)
	$(say) AS $<
	$(Q)$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

$(B)/pic/%.c.o: %.c
	@mkdir -p $(@D)
	$(say) CC "$< (pic)"
	$(Q)$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -fPIC -fvisibility=hidden -MMD -MP -c -o $@ $<

$(B)/libengine.a: $(call obj,$(ENGINE_SRC))
	$(say) AR $@
	$(Q)rm -f $@ && ar rcs $@ $^

$(B)/libtest.a: $(call obj,$(TESTLIB_SRC))
	$(say) AR $@
	$(Q)rm -f $@ && ar rcs $@ $^

$(B)/libvpool.a: $(call obj,$(LIB_SRC)) $(call obj,$(filter base/%,$(ENGINE_SRC)))
	$(say) AR $@
	$(Q)rm -f $@ && ar rcs $@ $^

$(B)/libvpool.so.0: $(patsubst %,$(B)/pic/%.o,$(LIB_SRC) $(filter base/%,$(ENGINE_SRC)))
	$(say) LD $@
	$(Q)$(CC) $(filter-out -pie,$(ALL_LDFLAGS)) -shared -Wl,-soname,libvpool.so.0 -o $@ $^ $(shell pkg-config --libs jansson libisal)
	$(Q)ln -sf libvpool.so.0 $(B)/libvpool.so

define tool_rule
$(B)/$(1): $$(call obj,$$(wildcard tools/$(1)/*.c)) $(B)/libvpool.a $(B)/libengine.a
	$$(say) LD $$@
	$$(Q)$$(CC) $$(ALL_LDFLAGS) -o $$@ $$^ $$(PKG_LIBS)
endef
$(foreach t,$(TOOLS),$(eval $(call tool_rule,$(t))))

TEST_PKGS = $(shell pkg-config --libs cmocka 2>/dev/null)
# Allocations of unit tests and of the simulator can fail (tests/lib/failing_malloc.h).
FAILING_MALLOC := $(foreach f,malloc calloc realloc aligned_alloc,-Wl,--wrap=$(f))
# Which unit tests make threads is noted (tests/lib/thread_note.c).
$(UNIT_BINS): $(B)/%: $(B)/%.c.o $(B)/libtest.a $(B)/libvpool.a $(B)/libengine.a $(B)/libtest.a
	$(say) LD $@
	$(Q)$(CC) $(ALL_LDFLAGS) $(FAILING_MALLOC) -Wl,--wrap=pthread_create -o $@ $+ $(PKG_LIBS) $(TEST_PKGS)

$(HELPER_BINS) $(BENCH_BINS): $(B)/%: $(B)/%.c.o $(B)/libtest.a $(B)/libvpool.a $(B)/libengine.a
	$(say) LD $@
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(PKG_LIBS) $(TEST_PKGS)

$(B)/tests/sim/sim: $(call obj,$(SIM_SRC)) $(B)/libtest.a $(B)/libengine.a
	$(say) LD $@
	$(Q)$(CC) $(ALL_LDFLAGS) $(FAILING_MALLOC) -o $@ $^ $(PKG_LIBS)

# A fuzz target outside the fuzz flavour links tests/fuzz/replay_main.c and replays its corpus.
$(FUZZ_BINS): $(B)/%: $(B)/%.c.o $(call obj,$(if $(filter fuzz,$(FLAVOUR)),$(filter-out %replay_main.c,$(FUZZ_LIB)),$(FUZZ_LIB))) $(B)/libtest.a $(B)/libengine.a
	$(say) LD $@
	$(Q)$(CC) $(ALL_LDFLAGS) $(if $(filter fuzz,$(FLAVOUR)),-fsanitize=fuzzer) -o $@ $^ $(PKG_LIBS)

# For tests/vm/bench: preloaded, so by itself.
$(B)/tests/vm/crc_tables.so: tests/vm/crc_tables.c
	@mkdir -p $(@D)
	$(say) LD $@
	$(Q)$(CC) -std=gnu17 -O2 -g $(WARN) -fPIC -shared -o $@ $<

tests: all $(TEST_BINS)

unit: all $(UNIT_RUN)
	$(Q)tests/lib/run-units $(UNIT_RUN)

sim: $(SIM_BIN)
	$(Q)$(SIM_BIN) --ci

soak: tests $(BENCH_BINS)
	$(Q)VPOOL_BUILD=$(B) tests/lib/soak

tidy:
	$(Q)tests/lib/tidy

format:
	$(Q)git ls-files '*.c' '*.h' | xargs clang-format-14 -i

bench: all $(BENCH_BINS)
	$(Q)tests/bench/run
	$(Q)tests/bench/move --switches 200 --qemu "$$(tests/bench/qemu || echo qemu-storage-daemon)"
	$(Q)tests/bench/disk_return
	$(Q)$(B)/tests/bench/formed_pool --check /dev/shm

bench-vm: all $(B)/tests/vm/crc_tables.so
	$(Q)tests/vm/bench --build $(B)

fuzz: $(FUZZ_BINS)
	$(Q)tests/fuzz/run $(B) $(or $(TIME),60)

check:
	$(Q)./check

install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/sbin $(DESTDIR)$(PREFIX)/lib $(DESTDIR)$(PREFIX)/include
	install -d $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/man/man3 $(DESTDIR)$(PREFIX)/share/man/man5 $(DESTDIR)$(PREFIX)/share/man/man8 $(DESTDIR)$(PREFIX)/share/doc/vpool
	install -m 755 $(filter-out %/vpoold,$(TOOL_BINS)) $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(B)/vpoold $(DESTDIR)$(PREFIX)/sbin
	install -m 644 $(B)/libvpool.a $(DESTDIR)$(PREFIX)/lib
	install -m 755 $(B)/libvpool.so.0 $(DESTDIR)$(PREFIX)/lib
	ln -sf libvpool.so.0 $(DESTDIR)$(PREFIX)/lib/libvpool.so
	install -m 644 lib/vpool.h $(DESTDIR)$(PREFIX)/include
	for s in 1 3 5 8; do for f in docs/man/*.$$s; do [ ! -e $$f ] || install -m 644 $$f $(DESTDIR)$(PREFIX)/share/man/man$$s; done; done
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	sed 's|/usr/sbin/vpoold|$(PREFIX)/sbin/vpoold|' packaging/vpoold.service > $(DESTDIR)$(PREFIX)/lib/systemd/system/vpoold.service
	install -d $(DESTDIR)$(PREFIX)/lib/udev/rules.d
	install -m 644 packaging/61-vpool.rules $(DESTDIR)$(PREFIX)/lib/udev/rules.d
	install -m 644 packaging/vpoold.conf.sample README.md $(DESTDIR)$(PREFIX)/share/doc/vpool

clean:
	rm -rf build

.SECONDARY:
-include $(shell find $(B) -name '*.d' 2>/dev/null)
