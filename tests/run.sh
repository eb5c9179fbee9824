#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# make check: unit tests, fuzz targets for a short time each, system tests; all under sanitizers. Everything runs whatever
# failed before; the last line sums it up: N passed, N failed, N skipped. System tests run four at a time on two cores, where a
# test may starve: up to AGAIN of them (3) that failed run once more, alone; those that pass then count as passed and are named
# as RETRIED, those that fail again, and all where more than that failed, have failed.
#   run.sh [unit|fuzz|system|leaks]...     default: all
#   FUZZ_SECONDS  per fuzz target (4; 0: none)     PYTEST  further arguments, e.g. "-k socks"
#   FUZZ_SEED     of libFuzzer (1): with the same seed and the same program the same inputs come in the same order, so that
#                 what one run finds the next one finds again; another number looks elsewhere
set -u
cd "$(dirname "$0")/.."
out=build/check
san=build/san
PYTHON=${PYTHON:-/usr/bin/python3}
FUZZ_SECONDS=${FUZZ_SECONDS:-4}
FUZZ_SEED=${FUZZ_SEED:-1}
AGAIN=${AGAIN:-3}
passed=0 failed=0 skipped=0 skips=() failures=() fuzz_failures=() retried=()
mkdir -p $out
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1

count() { passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + $3)); }
fault() { failures+=("$1"); count 0 1 0; }

# -k: what builds is tested, whatever does not.
build() { make --no-print-directory -k -j"$(nproc)" "$@" || fault "build: make $*"; }

# As root in a network of its own, so that two at a time take no ports from each other.
unit_one() {
	local program=$1 log=$out/$2.log alone=()
	if [ "$(id -u)" = 0 ] && unshare --net true 2> /dev/null; then
		alone=(unshare --net bash -c 'ip link set lo up; exec "$@"' bash)
	fi
	timeout "${UNIT_SECONDS:-120}" "${alone[@]}" "$program" > "$log" 2>&1
	echo $? > "$out/$2.status"
}

# Each test that began and did neither end well nor skip has failed, also where the program died in it.
unit() {
	echo "== unit tests"
	build SAN=1 all unit-tests
	local program log name status ran ok skip
	rm -f $out/test_*.status
	for program in $san/tests/test_*; do
		name=$(basename "$program")
		[ -x "$program" ] && [ -e "tests/unit/$name.c" ] || continue
		unit_one "$program" "$name" &
		while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do wait -n; done
	done
	wait
	for status in $out/test_*.status; do
		name=$(basename "$status" .status)
		log=$out/$name.log
		echo "-- $name"
		cat "$log"
		status=$(cat "$status")
		ran=$(grep -c '^\[ RUN  ' "$log")
		ok=$(grep -c '^\[       OK \]' "$log")
		skip=$(sed '/^\[==========\].*run\.$/,$d' "$log" | grep -c '^\[  SKIPPED \]')
		[ "$skip" = 0 ] || skips+=("$name: $(sed -n 's/^\[  SKIPPED \] \(test\|[a-z_]*\)/\1/p' "$log" | sort -u | tr '\n' ' ')")
		count "$ok" $((ran - ok - skip)) "$skip"
		[ "$ran" = $((ok + skip)) ] || failures+=("$name: $((ran - ok - skip)) of $ran")
		if [ "$status" != 0 ] && [ "$ran" = $((ok + skip)) ]; then
			fault "$name: exit status $status"
		fi
	done
}

fuzz_one() {
	local name=$1 corpus=$out/corpus/$1 seeds=tests/fuzz/corpus/${1#fuzz_}
	rm -rf "$corpus" "$out/artifacts/$name"-*
	mkdir -p "$corpus" $out/artifacts
	[ -d "$seeds" ] || seeds=
	ASAN_OPTIONS=detect_leaks=1 timeout $((FUZZ_SECONDS + 60)) build/fuzz/fuzz/"$name" -max_total_time="$FUZZ_SECONDS" \
		-seed="$FUZZ_SEED" -reload=0 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix=$out/artifacts/"$name"- "$corpus" $seeds \
		> "$out/$name.log" 2>&1
	echo $? > "$out/$name.status"
}

fuzz() {
	[ "$FUZZ_SECONDS" != 0 ] || { skips+=("fuzz targets: FUZZ_SECONDS=0"); count 0 0 1; return; }
	echo "== fuzz targets, $FUZZ_SECONDS s each"
	local source name status
	build fuzz
	for source in tests/fuzz/fuzz_*.c; do
		fuzz_one "$(basename "$source" .c)" &
		while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do wait -n; done
	done
	wait
	for source in tests/fuzz/fuzz_*.c; do
		name=$(basename "$source" .c)
		status=$(cat "$out/$name.status")
		if [ "$status" = 0 ]; then
			count 1 0 0
			echo "ok $name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$out/$name.log") inputs"
		else
			fault "$name: exit status $status, seed $FUZZ_SEED, see $out/$name.log and $out/artifacts/"
			tail -n 30 "$out/$name.log"
			fuzz_failures+=("$name")
		fi
	done
}

# What is needed to see a fuzz target's failure again, where only the end of the output is at hand.
fuzz_failure() {
	local name=$1 input
	echo "== $name failed, the end of its log:"
	grep -v '^#[0-9]*[[:space:]]' "$out/$name.log" | tail -n 60 | cut -c 1-300
	for input in "$out/artifacts/$name"-*; do
		[ -e "$input" ] || continue
		echo "-- $(basename "$input"), $(stat -c %s "$input") bytes; build/fuzz/fuzz/$name FILE runs it once more"
		[ "$(stat -c %s "$input")" -gt 4096 ] || { echo "-- base64 -d:"; base64 "$input"; }
	done
}

# pytest NAME ARGS: as root in a network of its own: no test sees the machine's, and no two runs each other's ports.
pytests() {
	local name=$1 alone=()
	shift
	if [ "$(id -u)" = 0 ] && unshare --net true 2> /dev/null; then
		alone=(unshare --net bash -c 'ip link set lo up; exec "$@"' bash)
	fi
	# shellcheck disable=SC2086
	HERMES_BUILD=$san "${alone[@]}" timeout -k 30 "${SYSTEM_SECONDS:-780}" $PYTHON -m pytest -q -p no:cacheprovider -rs \
		--junitxml="$out/$name.xml" "$@" ${PYTEST:-} > "$out/$name.log" 2>&1
}

# once_more NUMBERS TEST...: the numbers with what these tests do alone.
once_more() {
	local numbers=$1 result
	shift
	echo "== once more, alone: $*" >&2
	rm -f $out/again*
	pytests again "$@"
	cat $out/again.log >&2
	if ! result=$($PYTHON tests/junit.py $out/again.xml); then
		echo "$numbers"
		return
	fi
	# shellcheck disable=SC2086
	set -- $(head -n 1 <<< "$numbers") $(head -n 1 <<< "$result") "$@"
	echo $(($1 + $4)) $(($2 - $4)) "$3"
	sed -n '/^failed /p' <<< "$result"
	sed -n '/^skipped /p' <<< "$numbers"
	for test in "${@:7}"; do grep -qF "failed $(sed 's,/,.,g; s,\.py::,.,' <<< "$test")" <<< "$result" || echo "retried $test"; done
}

# Counts what these runs of pytest found.
collect() {
	local numbers name files=() again=()
	for name; do cat "$out/$name.log"; files+=("$out/$name.xml"); done
	if ! numbers=$($PYTHON tests/junit.py "${files[@]}"); then
		fault "$*: did not finish"
		return
	fi
	mapfile -t again < <(sed -n 's/^failed \(tests\.[a-z]*\.[a-z0-9_]*\)\.\(test_.*\)/\1.py::\2/p' <<< "$numbers" | sed ':a; s,^\([^:]*\)\.\(.*\.py::\),\1/\2,; ta')
	if [ "$1" != again ] && [ ${#again[@]} -gt 0 ] && [ ${#again[@]} -le "$AGAIN" ]; then
		numbers=$(once_more "$numbers" "${again[@]}")
		mapfile -t -O ${#retried[@]} retried < <(sed -n 's/^retried //p' <<< "$numbers")
	fi
	# shellcheck disable=SC2086
	count $(head -n 1 <<< "$numbers")
	mapfile -t -O ${#failures[@]} failures < <(sed -n 's/^failed //p' <<< "$numbers")
	mapfile -t -O ${#skips[@]} skips < <(sed -n 's/^skipped //p' <<< "$numbers")
}

system() {
	local shards=1 i
	build SAN=1 all netlab
	# most of them wait most of the time
	[ "$(nproc)" = 1 ] || [ "$(id -u)" != 0 ] || shards=4
	echo "== system tests, in $shards parts"
	rm -f $out/system*
	for ((i = 0; i < shards; i++)); do HERMES_SHARD=$i/$shards pytests system$i tests/system & done
	wait
	# shellcheck disable=SC2046
	collect $(for ((i = 0; i < shards; i++)); do echo system$i; done)
}

# LeakSanitizer needs ptrace, which the sandbox refuses: the main job once more without it.
leaks() {
	echo "== the main job without sandboxes, for leaks"
	build SAN=1 all netlab
	rm -f $out/leaks*
	HERMES_SANDBOX=off pytests leaks tests/system/test_main_job.py tests/system/test_http2_clients.py
	collect leaks
}

[ $# -gt 0 ] || set -- unit fuzz system leaks
for part; do
	began=$SECONDS
	$part
	echo "== $part: $((SECONDS - began)) s"
done
for line in "${skips[@]}"; do echo "SKIPPED: ${line:0:200}"; done
for line in "${retried[@]}"; do echo "RETRIED (failed beside others, passed alone): ${line:0:200}"; done
for line in "${failures[@]}"; do echo "FAILED: ${line:0:200}"; done
for name in "${fuzz_failures[@]}"; do fuzz_failure "$name"; done
[ $((passed + failed)) -gt 0 ] || { echo "nothing ran"; failed=1; }
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
