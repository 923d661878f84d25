"""Medians of samples, ratios between peers, and the tables of a comparison."""

import statistics

ALWAYS = ("direct", "haproxy")


def results(cases, peers, samples):
    """One dict per case: what it is, and per peer the medians, their spread, the ratios and all samples."""
    found = []
    for case in cases:
        taken = samples.get(case.name)
        if not taken:
            continue
        per_peer = {peer.name: summary(taken.get(peer.name, [])) for peer in peers}
        for of in ALWAYS:
            add_ratios(per_peer, of)
        found.append({
            "case": case.name, "what": case.what, "unit": case.unit, "clients": case.clients, "peers": per_peer,
        })  # fmt: skip
    return found


def summary(taken):
    good = [sample for sample in taken if "failed" not in sample]
    names = sorted({name for sample in good for name, value in sample.items() if isinstance(value, (int, float))})
    medians, spread = {}, {}
    for name in names:
        values = [sample[name] for sample in good if sample.get(name) is not None]
        medians[name] = sum(values) if name == "errors" else statistics.median(values)
        if medians[name]:
            spread[name] = (max(values) - min(values)) / 2 / medians[name]
    return {"medians": medians, "spread": spread, "ratios": {}, "samples": taken}


def add_ratios(per_peer, of):
    base = per_peer.get(of, {}).get("medians", {})
    for peer in per_peer.values():
        peer["ratios"][of] = {
            name: value / base[name] for name, value in peer["medians"].items() if base.get(name) and name != "errors"
        }


class Column:
    """`key` of the medians, or with `of` its ratio to that peer."""

    def __init__(self, title, key, form="{:.1f}", of=None, scale=1.0):
        self.title, self.key, self.form, self.of, self.scale = title, key, form, of, scale

    def cell(self, peer):
        values = peer["ratios"].get(self.of, {}) if self.of else peer["medians"]
        value = values.get(self.key)
        return "–" if value is None else self.form.format(value * self.scale)


def columns(case, peers):
    unit = case["unit"]
    with_haproxy = any(peer.name == "haproxy" for peer in peers)
    with_direct = any(peer.name == "direct" for peer in peers)

    def ratios(key):
        found = []
        if with_direct:
            found.append(Column("×direct", key, "{:.2f}", "direct"))
        if with_haproxy:
            found.append(Column("×haproxy", key, "{:.2f}", "haproxy"))
        return found

    if case["case"] == "idle":
        return [
            Column("KiB/client", "rss_kib", "{:.2f}"),
            *[column for column in ratios("rss_kib") if column.of == "haproxy"],
            Column("server KiB/client", "server_rss_kib", "{:.1f}"),
            Column("CPU ms/s", "idle_cpu_us", "{:.2f}", scale=1e-3),
        ]
    cpu = [Column(f"CPU µs/{unit}", "cpu_us"), *[column for column in ratios("cpu_us") if column.of == "haproxy"]]
    if case["case"].startswith("large"):
        rate = [Column("MB/s", "mb_per_second", "{:,.0f}"), *ratios("mb_per_second")]
    else:
        rate = [Column(f"{plural(unit)}/s", "per_second", "{:,.0f}"), *ratios("per_second")]
    return [
        *cpu,
        *rate,
        Column("p50 ms", "p50_ms", "{:.3f}"),
        Column("p99 ms", "p99_ms", "{:.3f}"),
        Column("server CPU µs", "server_cpu_us"),
    ]


def plural(unit):
    return "queries" if unit == "query" else unit + "s"


def spread(peer):
    """How far the samples of the case's first figure lie apart: half of (largest - smallest), of the median."""
    for key in ("cpu_us", "rss_kib", "per_second"):
        if key in peer["spread"]:
            return f"±{peer['spread'][key] * 100:.0f}%"
    return "–"


def text(facts, peers, found, cut):
    lines = [f"{name}: {value}" for name, value in facts.items()]
    lines += [f"{peer.name}: {peer.version}" for peer in peers if peer.version]
    if cut:
        lines.append("CUT SHORT: not all rounds were measured.")
    if facts.get("load average at the beginning", 0) > 0.5:
        lines.append("THE MACHINE WAS BUSY WITH SOMETHING ELSE: these figures are noise.")
    for case in found:
        lines += ["", f"{case['case']}: {case['what']}", *table(case, peers), *remarks(case)]
    return "\n".join(lines)


def table(case, peers):
    wanted = columns(case, peers)
    rows = [["", *[column.title for column in wanted], "±"]]
    for peer in peers:
        figures = case["peers"][peer.name]
        rows.append([peer.name, *[column.cell(figures) for column in wanted], spread(figures)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        first, *rest = row
        cells = [first.ljust(widths[0]), *[cell.rjust(width) for cell, width in zip(rest, widths[1:])]]
        yield "  " + "  ".join(cells)


def remarks(case):
    """What a reader must know before believing the figures."""
    for name, peer in case["peers"].items():
        errors = peer["medians"].get("errors")
        if errors:
            first = next((sample["error"] for sample in peer["samples"] if sample.get("error")), "")
            yield f"  ! {name}: {errors:.0f} errors {first}".rstrip()
        for sample in peer["samples"]:
            if "failed" in sample:
                yield f"  ! {name}: {sample['failed']}"
