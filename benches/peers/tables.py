"""From the rows that run.sh collected to tables.

    tables.py wrap FRAMEWORK SUBJECT ROUND   standard input, JSON, as lines for results.jsonl
    tables.py sizes results.jsonl            of the products that curvkit made
    tables.py tables OUT [--version V]       OUT/results.jsonl → OUT/results.json and OUT/tables.md
    tables.py into FILE OUT --section NAME   OUT/tables.md between the marks `<!-- NAME -->` of FILE
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import re
import subprocess
import sys

PEERS = {"torch-eager": "PyTorch eager", "torch-compile": "PyTorch compiled", "jax-jit": "JAX jit"}


def wrap(framework, subject, turn):
    text = sys.stdin.read().strip()
    rows = [json.loads(text)] if framework == "curvkit" else map(json.loads, text.splitlines())
    about = {"framework": framework, "subject": subject, "round": int(turn), "load": os.getloadavg()[0]}
    for row in rows:
        print(json.dumps(row | about))


def read(path):
    return [json.loads(line) for line in open(path)]


def sizes(path):
    found = {p["m"] for row in read(path) if row["framework"] == "curvkit" for p in row["ceilings"]["products"]}
    print(",".join(map(str, sorted(found))))


def machine():
    """CPU and GPU, in words."""
    cpu = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())[1]
    words = f"{cpu}, {os.cpu_count()} cores"
    try:
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        words += "; " + subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        pass
    return words


def collect(rows):
    """{(framework, subject, case): {seconds: best, rounds: [best of each], row: the best's}}"""
    cases = {}

    def add(framework, subject, case, seconds, row):
        entry = cases.setdefault((framework, subject, case), {"seconds": float("inf"), "rounds": [], "row": None})
        entry["rounds"].append(seconds)
        if seconds < entry["seconds"]:
            entry.update(seconds=seconds, row=row)

    for row in rows:
        subject = row["subject"]
        if row["framework"] != "curvkit":
            case = row.get("size") or row.get("k") or row.get("batch")
            add(row["framework"], subject, case, row["seconds"], row)
        elif subject == "gemm":
            for size in {p["m"] for p in row["ceilings"]["products"]}:
                best = max((p for p in row["ceilings"]["products"] if p["m"] == size), key=lambda p: p["flops"])
                add("curvkit", subject, size, 2 * size**3 / best["flops"], best)
        else:
            for r in row["result"]["rows"]:
                add("curvkit", subject, r.get("k") or r.get("batch"), r["seconds"], r)
    return cases


def spread(entry):
    """The slowest round's best over the fastest's."""
    return max(entry["rounds"]) / min(entry["rounds"])


def table(head, rows):
    lines = [head, ["---"] + ["---:"] * (len(head) - 1)] + rows
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def number(x):
    """Three digits."""
    return f"{x:,.0f}" if x >= 100 else f"{x:.3g}"


def tables(out, version):
    out = pathlib.Path(out)
    rows = read(out / "results.jsonl")
    ours, peers = ([r for r in rows if (r["framework"] == "curvkit") == mine] for mine in (True, False))
    cases = collect(rows)
    of = lambda framework, subject: {c: e for (f, s, c), e in cases.items() if (f, s) == (framework, subject)}
    ceiling = max(r["ceilings"]["gemm"] for r in ours)
    bandwidth = max(r["ceilings"]["bandwidth"] for r in ours)
    dispatch = min(r["ceilings"]["dispatch"] for r in ours)
    adapter = ours[0]["adapter"]
    versions = {k: v for r in peers for k, v in r["versions"].items()}
    devices = {r["framework"]: r["device_name"] or r["device"] for r in peers}
    frameworks = [f for f in PEERS if f in devices]
    loads = [r["load"] for r in rows]
    rounds = max(r["round"] for r in rows)
    def ways(f):
        """The fastest way of each row."""
        names = {"hvp": "HVP K =", "train": "SGD B ="}
        return "; ".join(f"{n} {c}: {e['row']['way']}" for s, n in names.items() for c, e in sorted(of(f, s).items()))


    text = [
        f"- {datetime.date.today()}, {machine()}; load average {min(loads):.1f} to {max(loads):.1f} during the run\n"
        f"- curvkit {version} on {adapter['name']}, {adapter['driver']} {adapter['driver_info']}, {adapter['backend']}\n"
        f"- {', '.join(f'{k} {v}' for k, v in versions.items())}; "
        + ", ".join(f"{PEERS[f]} on {devices[f]}" for f in frameworks)
        + f"\n- {rounds} rounds in turn, the best of all kept; *varies* is the slowest round's best over the fastest's\n"
    ]

    families = {}
    for r in ours:
        for p in r["ceilings"]["products"]:
            families.setdefault((p["m"], p.get("layout", "NT"), p["family"]), []).append(p["flops"])
    text.append("### Ceilings\n")
    body = [
        [f"product {m}³ {layout}, {family} tiles", f"{max(v) / 1e9:.2f} GFLOP/s", f"{max(v) / min(v):.2f}×"]
        for (m, layout, family), v in sorted(families.items())
    ]
    each = lambda what: [r["ceilings"][what] for r in ours]
    body.append(["copy, read and written", f"{bandwidth / 1e9:.2f} GB/s", f"{max(each('bandwidth')) / min(each('bandwidth')):.2f}×"])
    body.append(["a dispatch of 64 elements", f"{dispatch * 1e6:.1f} µs", f"{max(each('dispatch')) / min(each('dispatch')):.2f}×"])
    text.append(table(["", "best", "varies"], body))
    text.append(f"\nThe GEMM ceiling of the shares below is the best of these, {ceiling / 1e9:.2f} GFLOP/s.\n")

    hvp = of("curvkit", "hvp")
    if hvp:
        text.append("### HVP: 784-1024-512-256-128-64-10 with bias, ReLU, cross-entropy, N = 512\n")
        body = []
        for k, e in sorted(hvp.items()):
            r, s = e["row"], e["seconds"]
            body.append([
                k, f"{s:.3f}", number(k / s), number(r["samples_per_second"]), f"{r['flops'] / 1e9:.2f}",
                f"{r['flops'] / ceiling:.0%}", r["dispatches"], f"{spread(e):.2f}×",
            ])  # fmt: skip
        head = ["K", "seconds a block", "HVPs/s", "samples/s", "GFLOP/s", "of the ceiling", "dispatches", "varies"]
        text.append(table(head, body))
        if 1 in hvp:
            work = lambda k: hvp[k]["row"]["flops"] * hvp[k]["row"]["seconds"] / k
            last = max(hvp)
            gain = hvp[1]["seconds"] * last / hvp[last]["seconds"]
            text.append(
                f"\nA direction of the block of {last} takes {1 - work(last) / work(1):.0%} fewer operations than one on its"
                f" own ({work(1) / 1e9:.2f} → {work(last) / 1e9:.2f} GFLOP); its throughput is {gain:.2f}× that of single calls.\n"
            )

    train = of("curvkit", "train")
    if train:
        text.append("### SGD: 784-50-50-10 without bias, B = 50\n")
        body = []
        for b, e in sorted(train.items()):
            r = e["row"]
            floor = r["dispatches"] * dispatch + r["flops"] * r["seconds"] / ceiling
            body.append([
                b, number(1 / e["seconds"]), f"{e['seconds'] * 1e6:,.0f}", r["dispatches"], f"{floor * 1e6:,.0f}",
                f"{e['seconds'] / floor:.2f}", f"{spread(e):.2f}×",
            ])  # fmt: skip
        head = ["B", "steps/s", "µs a step", "dispatches", "floor, µs", "times the floor", "varies"]
        text.append(table(head, body))
        text.append("\nThe floor is dispatches × the time of an empty one + the products' operations at the ceiling.\n")

    text.append("### Against PyTorch and JAX\n")
    text.append("Rates; in brackets ours over theirs (above 1: ours is faster), and how much theirs varied.\n")
    units = {
        "gemm": (lambda c: f"product {c}³, GFLOP/s", lambda c, s: 2 * c**3 / s / 1e9),
        "hvp": (lambda c: f"HVPs/s, K = {c}", lambda c, s: c / s),
        "train": (lambda c: f"SGD steps/s, B = {c}", lambda c, s: 1 / s),
    }
    body, results = [], []
    for subject, (name, rate) in units.items():
        for case, e in sorted(of("curvkit", subject).items()):
            mine = rate(case, e["seconds"])
            line = [name(case), f"{number(mine)} ({spread(e):.2f}×)"]
            for f in frameworks:
                peer = of(f, subject).get(case)
                if peer is None:
                    line.append("–")
                    continue
                theirs = rate(case, peer["seconds"])
                line.append(f"{number(theirs)} (**{mine / theirs:.3f}**, {spread(peer):.2f}×)")
                results.append({
                    "subject": subject, "case": case, "peer": f, "ours": mine, "theirs": theirs,
                    "ratio": mine / theirs, "way": peer["row"]["way"], "ours_varies": spread(e),
                    "theirs_varies": spread(peer),
                })  # fmt: skip
            body.append(line)
    text.append(table(["", "curvkit"] + [PEERS[f] for f in frameworks], body))
    if train or hvp:
        text.append("\nThe fastest way of each:\n")
        text.append("\n".join(f"- {PEERS[f]}: {ways(f)}" for f in frameworks) + "\n")

    (out / "tables.md").write_text("\n\n".join(part.strip() for part in text) + "\n")
    summary = {
        "date": str(datetime.date.today()), "machine": machine(), "version": version, "adapter": adapter,
        "versions": versions, "devices": devices, "rounds": rounds, "load": [min(loads), max(loads)],
        "ceilings": {"gemm": ceiling, "bandwidth": bandwidth, "dispatch": dispatch}, "rows": results,
    }  # fmt: skip
    (out / "results.json").write_text(json.dumps(summary, indent=1) + "\n")


def into(file, out, section):
    mark = f"<!-- {section} -->"
    before, _, after = pathlib.Path(file).read_text().split(mark)
    made = (pathlib.Path(out) / "tables.md").read_text()
    pathlib.Path(file).write_text(f"{before}{mark}\n{made.strip()}\n{mark}{after}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["wrap", "sizes", "tables", "into"])
    parser.add_argument("arguments", nargs="+")
    parser.add_argument("--version", default="unknown")
    parser.add_argument("--section", default="peers")
    options = parser.parse_args()
    match options.command:
        case "wrap":
            wrap(*options.arguments)
        case "sizes":
            sizes(*options.arguments)
        case "tables":
            tables(*options.arguments, options.version)
        case "into":
            into(*options.arguments, options.section)


if __name__ == "__main__":
    main()
