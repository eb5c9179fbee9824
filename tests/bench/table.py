# SPDX-License-Identifier: Apache-2.0
"""The bench's figures as a table for people: median, spread, ratio to the best peer, and the goal."""

import shutil

# (result, figure, label, unit, goal of ANCHORS.md section 5, what nghttpx took there (None: the goal is absolute), higher is
# better). Machines differ, so a goal is held to as a ratio: goal here = goal there * nghttpx here / nghttpx there.
ROWS = [
    ("bulk_one_up", "cpu_s_per_gb", "one hop, up", "CPU s/GB", 0.95, 1.34, False),
    ("bulk_one_down", "cpu_s_per_gb", "one hop, down", "CPU s/GB", 0.95, 1.39, False),
    ("bulk_one_up", "gbit", "one hop, up", "Gbit/s", None, None, True),
    ("bulk_one_down", "gbit", "one hop, down", "Gbit/s", None, None, True),
    ("bulk_two_up", "cpu_s_per_gb", "two hops, up", "CPU s/GB", 2.0, 3.42, False),
    ("bulk_two_down", "cpu_s_per_gb", "two hops, down", "CPU s/GB", 2.0, 2.64, False),
    ("bulk_two_up", "gbit", "two hops, up", "Gbit/s", None, None, True),
    ("bulk_two_down", "gbit", "two hops, down", "Gbit/s", None, None, True),
    ("latency_one", "added_p50_us", "one hop adds, p50", "µs", 10, 16, False),
    ("latency_one", "p99_us", "one hop, p99", "µs", 60, None, False),
    ("latency_two", "added_p50_us", "two hops add, p50", "µs", 28, 37, False),
    ("latency_two", "p99_us", "two hops, p99", "µs", None, None, False),
]
for _n in (1, 100, 1000):
    for _work, _hops in (("one", "one hop"), ("two", "two hops")):
        _last = _n == 1000 and _work == "one"
        ROWS += [(f"requests_{_n}_{_work}", "per_s", f"{_n:,} at once, {_hops}", "requests/s", None, None, True),
                 (f"requests_{_n}_{_work}", "p50_ms", f"{_n:,} at once, {_hops}, p50", "ms", 50 if _last else None, 67, False),
                 (f"requests_{_n}_{_work}", "cpu_us", f"{_n:,} at once, {_hops}", "CPU µs each", 30 if _last else None, 49,
                  False)]
ROWS += [("late", "p50_ms", "one request, 20 ms away, p50", "ms", None, None, False),
         ("late_tcp", "p50_ms", "the same, data follows at once", "ms", 22, None, False),
         ("memory_1", "kib_per_tunnel", "idle tunnel, on one connection", "KiB", 4, None, False),
         ("memory_200", "kib_per_tunnel", "idle tunnel, on 200 connections", "KiB", 14, None, False),
         ("memory_1", "base_mib", "all processes of a node, idle (Pss)", "MiB", 24, None, False)]


def number(value):
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}"


def cell(figures, figure):
    got = (figures or {}).get(figure)
    return f"{number(got['median'])} ({number(got['min'])}-{number(got['max'])})" if got else "-"


def ratio(results, row):
    """How many times better we are than the best peer (above 1: better)."""
    name, figure, higher = row[0], row[1], row[-1]
    ours = results[name].get("hermes", {}).get(figure)
    others = [f[figure]["median"] for n, f in results[name].items() if n in ("nghttpx", "haproxy") and figure in f]
    if not ours or not others or ours["median"] <= 0:
        return "-"
    best = max(others) if higher else min(others)
    return f"{ours['median'] / best if higher else best / ours['median']:.2f}x"


def goal_here(results, row):
    """The goal on this machine, or None."""
    name, figure, _label, _unit, goal, peer_there, _higher = row
    if goal is None or peer_there is None:
        return goal
    peer = results[name].get("nghttpx", {}).get(figure)
    return goal * peer["median"] / peer_there if peer else None


def goal_cell(results, row):
    goal, ours = goal_here(results, row), results[row[0]].get("hermes", {}).get(row[1])
    if goal is None:
        return ""
    return number(goal) + ("" if not ours else " reached" if ours["median"] <= goal else " missed")


def print_tables(record):
    results = record["results"]
    columns = ["direct", "nghttpx", "haproxy", "hermes"]
    lines = [["work", "unit", *columns, "us:best", "goal here"]]
    for row in ROWS:
        name, figure, label, unit = row[:4]
        if name not in results:
            continue
        got = dict(results[name])
        got.setdefault("direct", got.get("direct TLS"))
        if figure.startswith("added") or figure == "cpu_us":
            got["direct"] = None
        lines.append([label, unit, *(cell(got.get(c), figure) for c in columns), ratio(results, row),
                      goal_cell(results, row)])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    print()
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip())
    print(f"""
Median (lowest-highest) of {record['rounds']} rounds, all proxies in turn. us:best: how many times better than the best peer
(above 1: better). goal here: the goal of ANCHORS.md times what nghttpx takes here, over what it took there; p99, the
late link and memory are absolute.
direct: no proxy; at requests a fresh TLS connection each.""")


def finish(faults, folder):
    """Says which measurements are not in the figures, and returns the exit status: 1 where one of Hermes' is missing. What a
    peer fails at leaves its column with fewer rounds, or empty."""
    for fault in faults:
        print(f"{'FAILED' if fault.lower().startswith('hermes') else 'not in the figures'}: {fault}")
    if faults:
        print(f"logs: {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if any(fault.lower().startswith("hermes") for fault in faults) else 0
