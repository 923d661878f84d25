#!/usr/bin/env python3
"""Runs the cases of a comparison on every peer in turn, and prints medians and ratios.

Started by benches/compare, which starts the server and the peers and describes them in the file --plan.
"""

import argparse
import fnmatch
import json
import os
import platform
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import report  # noqa: E402

POINT = "SELECT c FROM sbtest1 WHERE id={id}"
LARGE = "SELECT pad FROM large"
TICK = 1_000_000 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Peer:
    name: str
    port: int
    pid: int  # 0: a direct connection, no process
    version: str


@dataclass(frozen=True)
class Case:
    """One load. `unit` is what an operation is called, `tool` what makes it."""

    name: str
    what: str
    unit: str
    tool: str  # a Lua script of sysbench, or a kind of load of benches/load
    clients: int
    framing: str = "classic"
    sql: str = POINT
    statements: str = "disable"  # sysbench's --db-ps-mode: `auto` prepares what can be prepared


@dataclass
class Plan:
    values: dict = field(default_factory=dict)
    facts: dict = field(default_factory=dict)
    peers: list = field(default_factory=list)

    @classmethod
    def read(cls, path):
        plan = cls()
        for line in Path(path).read_text(encoding="utf-8").splitlines():
            key, *rest = line.split("\t")
            if key == "peer":
                plan.peers.append(Peer(rest[0], int(rest[1]), int(rest[2]), rest[3]))
            elif key == "fact":
                plan.facts[rest[0]] = rest[1]
            else:
                plan.values[key] = rest[0]
        return plan


def cases(threads, idle_clients):
    most = max(threads)
    # First, while the processes are fresh: memory that was used before would be used again and not be seen.
    found = [Case("idle", f"{idle_clients} clients that did one query and are idle", "client", "idle", idle_clients)]
    found += [
        Case(f"point-{n}", f"sysbench oltp_point_select, {n} clients", "query", "oltp_point_select", n) for n in threads
    ]
    prepared = "sysbench oltp_point_select, prepared statements"
    found += [Case(f"prepared-{n}", f"{prepared}, {n} clients", "query", "oltp_point_select", n, statements="auto") for n in threads]
    prepared = "sysbench oltp_read_write, prepared statements"
    found += [
        Case(f"read-write-{most}", f"sysbench oltp_read_write, {most} clients", "query", "oltp_read_write", most),
        Case(f"read-write-prepared-{most}", f"{prepared}, {most} clients", "query", "oltp_read_write", most, statements="auto"),
        Case("classic", f"point select, {most} clients, classic framing", "query", "query", most),
        Case("deprecate-eof", f"point select, {most} clients, DEPRECATE_EOF", "query", "query", most, "deprecate-eof"),
        Case("preping", f"ping and point select, {most} clients", "pair", "preping", most),
        Case("churn", "connect, point select, quit; 16 clients", "connection", "churn", 16),
        Case("large", "8,000 rows of 1,000 bytes, 4 clients", "result", "query", 4, sql=LARGE),
        Case("large-deprecate-eof", "the same, DEPRECATE_EOF", "result", "query", 4, "deprecate-eof", LARGE),
    ]
    return found


class Runner:
    """Takes one sample of one case on one peer. A sample is a flat dict; what could not be had is None."""

    def __init__(self, plan, options):
        self.plan = plan
        self.options = options
        self.server = int(plan.values["server"])

    def sample(self, case, peer, seconds):
        if case.tool.startswith("oltp_"):
            return self.sysbench(case, peer, seconds)
        return self.load(case, peer, seconds)

    def load(self, case, peer, seconds):
        values = self.plan.values
        watched = [self.server] + ([peer.pid] if peer.pid else [])
        command = [
            values["load"], case.tool, "--address", f"127.0.0.1:{peer.port}", "--user", values["user"],
            "--password", values["password"], "--database", values["database"], "--framing", case.framing,
            "--clients", str(case.clients), "--seconds", str(seconds), "--sql", case.sql,
            "--rows", str(self.options.rows), "--watch", ",".join(map(str, watched)),
        ]  # fmt: skip
        figures = json.loads(run(command, seconds + 130))
        server, proxy = figures["watched"][0], (figures["watched"] + [None])[1]
        done = figures["operations"]
        sample = {
            "per_second": figures["per_second"],
            "mb_per_second": figures["bytes"] / figures["seconds"] / 1e6,
            "p50_ms": figures["p50_ms"],
            "p99_ms": figures["p99_ms"],
            "cpu_us": ratio(proxy and proxy["cpu_us"], done),
            "server_cpu_us": ratio(server["cpu_us"], done),
            "load_cpu_us": ratio(figures["load_cpu_us"], done),
            "errors": figures["errors"],
            "error": figures["error"],
        }
        if case.tool == "idle":
            sample["rss_kib"] = grown(proxy, case.clients)
            sample["server_rss_kib"] = grown(server, case.clients)
            sample["idle_cpu_us"] = proxy and proxy["cpu_us"] / figures["seconds"]
        return sample

    def sysbench(self, case, peer, seconds):
        values = self.plan.values
        command = [
            "sysbench", case.tool, "--mysql-host=127.0.0.1", f"--mysql-port={peer.port}",
            f"--mysql-user={values['user']}", f"--mysql-password={values['password']}",
            f"--mysql-db={values['database']}", f"--table-size={self.options.rows}", "--tables=1",
            f"--threads={case.clients}", f"--time={seconds}", f"--db-ps-mode={case.statements}", "--histogram=on",
            # A deadlock is part of this load; anything else ends it.
            "--mysql-ignore-errors=1213,1020,1205", "run",
        ]  # fmt: skip
        before = cpu_us(self.server), cpu_us(peer.pid)
        text = run(command, seconds + 70)
        after = cpu_us(self.server), cpu_us(peer.pid)
        queries = number(r"^\s+total:\s+(\d+)", text)
        return {
            "per_second": number(r"^\s+queries:\s+\d+\s+\(([\d.]+) per sec", text),
            "transactions_per_second": number(r"^\s+transactions:\s+\d+\s+\(([\d.]+) per sec", text),
            "p50_ms": percentile(text, 50),
            "p99_ms": percentile(text, 99),
            "cpu_us": ratio(after[1] - before[1], queries) if peer.pid else None,
            "server_cpu_us": ratio(after[0] - before[0], queries),
            "errors": number(r"^\s+reconnects:\s+(\d+)", text),
            "ignored_errors": number(r"^\s+ignored errors:\s+(\d+)", text),
            "error": None,
        }


def run(command, limit):
    """Output of a program that must succeed in `limit` seconds."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            output, errors = process.communicate(timeout=limit)
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        tail = "\n".join((output + errors).strip().splitlines()[-6:])
        raise RuntimeError(f"{Path(command[0]).name} {command[1]} ended with {process.returncode}: {tail}")
    return output


def cpu_us(pid):
    """User and system time of a process so far, in microseconds; 0 for no process."""
    if not pid:
        return 0
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK


def ratio(amount, count):
    return None if amount is None or not count else amount / count


def grown(process, clients):
    if not process or process["rss_kib_after"] is None:
        return None
    return (process["rss_kib_after"] - process["rss_kib_before"]) / clients


def number(pattern, text):
    found = re.search(pattern, text, re.MULTILINE)
    if not found:
        raise RuntimeError(f"sysbench did not print what was expected ({pattern})")
    return float(found.group(1))


def percentile(text, percent):
    """From sysbench's histogram, whose lines are `   0.123 |****    456`. Of events: a transaction is one."""
    buckets = [(float(at), int(count)) for at, count in re.findall(r"^\s*([\d.]+) \|\**\s+(\d+)$", text, re.MULTILINE)]
    wanted = sum(count for _, count in buckets) * percent / 100
    seen = 0
    for at, count in buckets:
        seen += count
        if seen >= wanted:
            return at
    return None


def machine():
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return {
        "cpu": model.group(1) if model else platform.processor(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "load average at the beginning": round(os.getloadavg()[0], 2),
        "sysbench": run(["sysbench", "--version"], 10).strip(),
    }


def chosen_cases(options):
    threads = [int(number) for number in options.threads.split(",")]
    wanted = options.cases.split(",")
    every = cases(threads, options.idle_clients)
    found = [case for case in every if any(fnmatch.fnmatch(case.name, glob) for glob in wanted)]
    if not found:
        sys.exit(f"no case matches {options.cases}; there are: {' '.join(case.name for case in every)}")
    return found


def measure(runner, chosen, options, samples):
    """Fills samples[case][peer]. Peers take turns, and every round begins with another one of them."""
    peers = runner.plan.peers
    for number in range(options.rounds):
        for case in chosen:
            first = number % len(peers)
            for peer in peers[first:] + peers[:first]:
                if case.tool == "idle" and number > 0:
                    continue
                progress(f"round {number + 1}/{options.rounds}  {case.name}  {peer.name}")
                try:
                    if number == 0:
                        # Caches and pools fill; not counted.
                        few = min(case.clients, 16) if case.tool == "idle" else case.clients
                        runner.sample(replace(case, clients=few), peer, 1)
                    sample = runner.sample(case, peer, options.seconds)
                except (RuntimeError, subprocess.TimeoutExpired) as error:
                    sample = {"failed": str(error)}
                samples.setdefault(case.name, {}).setdefault(peer.name, []).append(sample)


def progress(text):
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
    else:
        print(text, file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--plan")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--threads", default="1,16,64")
    parser.add_argument("--idle-clients", type=int, default=2000)
    parser.add_argument("--rows", type=int, default=10000)
    parser.add_argument("--cases", default="*")
    parser.add_argument("--json", default="")
    options = parser.parse_args()
    chosen = chosen_cases(options)
    if options.list:
        for case in chosen:
            print(f"{case.name:24} {case.what}")
        return 0
    # sysbench counts whole seconds.
    options.seconds = max(1, round(options.seconds))
    plan = Plan.read(options.plan)
    facts = machine() | plan.facts | {"rounds": options.rounds, "seconds": options.seconds}
    samples, began, cut = {}, time.time(), False
    try:
        measure(Runner(plan, options), chosen, options, samples)
    except KeyboardInterrupt:
        cut = True
    progress("\r" if sys.stderr.isatty() else "done")
    facts["load average at the end"] = round(os.getloadavg()[0], 2)
    results = report.results(chosen, plan.peers, samples)
    print(report.text(facts, plan.peers, results, cut))
    if options.json:
        whole = {"began": int(began), "cut_short": cut, "facts": facts, "results": results}
        Path(options.json).write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    if cut:
        return 130
    failed = any("failed" in one for peers in samples.values() for taken in peers.values() for one in taken)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
