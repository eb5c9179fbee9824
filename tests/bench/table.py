# SPDX-License-Identifier: Apache-2.0
"""The bench's figures as a table for people: median, spread, ratio of the best peer's figure to ours, and the goal."""

ROWS = [      # (result, figure, label, unit, goal of ANCHORS.md section 5, higher is better)
    ("bulk_one_up", "cpu_s_per_gb", "one hop, up", "CPU s/GB", 0.95, False),
    ("bulk_one_down", "cpu_s_per_gb", "one hop, down", "CPU s/GB", 0.95, False),
    ("bulk_one_up", "gbit", "one hop, up", "Gbit/s", None, True),
    ("bulk_one_down", "gbit", "one hop, down", "Gbit/s", None, True),
    ("bulk_two_up", "cpu_s_per_gb", "two hops, up", "CPU s/GB", 2.0, False),
    ("bulk_two_down", "cpu_s_per_gb", "two hops, down", "CPU s/GB", 2.0, False),
    ("bulk_two_up", "gbit", "two hops, up", "Gbit/s", None, True),
    ("bulk_two_down", "gbit", "two hops, down", "Gbit/s", None, True),
    ("latency_one", "added_p50_us", "one hop adds, p50", "µs", 10, False),
    ("latency_one", "p99_us", "one hop, p99", "µs", 60, False),
    ("latency_two", "added_p50_us", "two hops add, p50", "µs", 28, False),
    ("latency_two", "p99_us", "two hops, p99", "µs", None, False),
]
for _n in (1, 100, 1000):
    for _work, _hops in (("one", "one hop"), ("two", "two hops")):
        _last = _n == 1000 and _work == "one"
        ROWS += [(f"requests_{_n}_{_work}", "per_s", f"{_n:,} at once, {_hops}", "requests/s", None, True),
                 (f"requests_{_n}_{_work}", "p50_ms", f"{_n:,} at once, {_hops}, p50", "ms", 50 if _last else None, False),
                 (f"requests_{_n}_{_work}", "cpu_us", f"{_n:,} at once, {_hops}", "CPU µs each", 30 if _last else None,
                  False)]
ROWS += [("memory_1", "kib_per_tunnel", "idle tunnel, on one connection", "KiB", 4, False),
         ("memory_200", "kib_per_tunnel", "idle tunnel, on 200 connections", "KiB", 14, False),
         ("memory_1", "base_mib", "all processes, idle (Pss)", "MiB", 24, False)]


def number(value):
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}"


def cell(figures, figure):
    got = (figures or {}).get(figure)
    return f"{number(got['median'])} ({number(got['min'])}-{number(got['max'])})" if got else "-"


def ratio(results, row):
    """How many times better we are than the best peer (above 1: better)."""
    name, figure, _label, _unit, _goal, higher = row
    ours = results[name].get("hermes", {}).get(figure)
    others = [f[figure]["median"] for n, f in results[name].items() if n in ("nghttpx", "haproxy") and figure in f]
    if not ours or not others or ours["median"] <= 0:
        return "-"
    best = max(others) if higher else min(others)
    return f"{ours['median'] / best if higher else best / ours['median']:.2f}x"


def print_tables(record):
    results = record["results"]
    columns = ["direct", "nghttpx", "haproxy", "hermes"]
    lines = [["work", "unit", *columns, "best peer/us", "goal"]]
    for row in ROWS:
        name, figure, label, unit, goal, higher = row
        if name not in results:
            continue
        got = dict(results[name])
        got.setdefault("direct", got.get("direct TLS"))
        if figure.startswith("added"):
            got["direct"] = None
        reached = got.get("hermes", {}).get(figure)
        mark = "" if goal is None else f"{goal:g}" + ("" if not reached else
                                                    " reached" if reached["median"] <= goal else " missed")
        lines.append([label, unit, *(cell(got.get(c), figure) for c in columns), ratio(results, row), mark])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    print()
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip())
    print(f"\nMedian (lowest-highest) of {record['rounds']} rounds; best peer/us above 1: Hermes is better."
          f" Direct at `requests`: a fresh TLS connection each.")
