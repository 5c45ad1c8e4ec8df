"""What each command prints for people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from experiments.console import print_rows
from toolkit.report.certificate import CertificateReport
from toolkit.report.record import RunRecord


def show(command: str, result: dict[str, Any], record: RunRecord | CertificateReport | None) -> None:
    """Print the result of a command."""
    if command == "tune" and isinstance(record, RunRecord):
        _show_tune(result, record)
    elif command == "study":
        _show_study(result)
    elif command == "diagnose":
        _show_diagnose(result)
    elif command == "bench":
        _show_bench(result)
    elif command == "race":
        from experiments.race_summary import show_race

        show_race(result)
    elif command == "reproduce":
        if result["paper"] == "boute":
            from experiments.reproduce_boute_summary import show_boute as show_reproduce
        else:
            from experiments.reproduce_summary import show_reproduce

        show_reproduce(result)
    elif command == "control":
        from experiments.control_summary import show_control

        show_control(result)
    elif command == "calibrate":
        from experiments.calibrate_show import show_calibrate

        show_calibrate(result)
    elif command == "simulate":
        from experiments.simulate_show import show_simulate

        show_simulate(result)
    elif command == "compare":
        from experiments.compare import show_compare

        show_compare(result)
    elif command == "certify" and isinstance(record, CertificateReport):
        _show_certify(result, record)
    elif command == "power":
        _show_power(result)
    elif command == "evaluate":
        _show_evaluate(result)
    elif command == "export":
        if result["diff"]:
            print(result["diff"], end="")
        print(f"Wrote {result['output']} (checked by {result['checked_by']}).")
    elif command == "verify":
        print(f"{result['verdict']}: {result['n_agree']} of {result['n']} prompts go to the same tier in LiteLLM "
              f"{result['litellm_version']}.")  # fmt: skip
    else:
        shares = ", ".join(f"{tier} {share:.1%}" for tier, share in result["tier_shares"].items())
        print(f"Wrote {result['output']}: {result['n']} decisions ({shares}).")


def _show_tune(result: dict[str, Any], record: RunRecord) -> None:
    from toolkit.report.sentences import plain_sentences, summary_rows

    print_rows(f"{record.policy} by {record.controller} on {record.source}", summary_rows(record))
    for sentence in plain_sentences(record):
        print(f"- {sentence}")
    for note in result["notes"]:
        print(f"- {note}")
    print(f"\nReport: {result['report']}")


def _show_certify(result: dict[str, Any], report: CertificateReport) -> None:
    from toolkit.report.certificate_sentences import certificate_rows, certificate_sentences

    header, rows = certificate_rows(report)
    print_rows(f"{report.policy} against {report.baseline}", [tuple(row) for row in rows], header)
    for sentence in certificate_sentences(report):
        print(f"- {sentence}")
    print(f"\nWrote {result['output']}.")


def _show_power(result: dict[str, Any]) -> None:
    rows = [
        (name, f"{s['n']:,}", f"{s['sd']:.3f}", f"{s['resolved']:.3f}", f"{s['needed']:,}", f"{s['missing']:,}")
        for name, s in result["slices"].items()
    ]
    header = ("slice", "labels", "sd of the difference", "resolves", "needed", "missing")
    print_rows(f"labels against {result['baseline']}, margin {result['margin']:.3g}", rows, header)
    for sentence in (*result["sentences"], *result["notes"]):
        print(f"- {sentence}")


def _show_certified_study(result: dict[str, Any]) -> None:
    rows = []
    for row in result["rows"]:
        if row["n_splits"] == 0:
            rows.append((row["rule"], "never", "", "", "", "", ""))
            continue
        verdicts = "; ".join(
            f"{name}: " + ", ".join(f"{n} {verdict}" for verdict, n in counts.items() if n)
            for name, counts in row["verdicts"].items()
        )
        figures = (f"{row['quality']:.4f}", f"{1000 * row['cost_usd']:.4g}", f"{row['optimism']:+.4f}")
        kept = f"{row['floor_met_share']:.0%} ({row['floor_shown_broken_share']:.0%} shown broken)"
        rows.append((row["rule"], f"{row['n_splits']} of {result['splits']}", *figures, kept, verdicts))
    header = ("rule", "chose a point", "quality", "USD / 1,000", "tune flatters by", "floor kept", "certify")
    title = f"{result['policy']} on scorer={result['scorer']}, {result['splits']} splits, judged on the rest"
    print_rows(f"{title} of {result['source']}", rows, header)


def _show_diagnose(result: dict[str, Any]) -> None:
    print_rows(f"the score of {result['source']}", [tuple(row) for row in result["_rows"]], result["_head"])
    for sentence in (*result["sentences"], *result["notes"]):
        print(f"- {sentence}")
    print(f"\nWrote {result['output']}")


def _show_study(result: dict[str, Any]) -> None:
    if result["choose"] == "certified":
        _show_certified_study(result)
        return
    rows = []
    for row in result["rows"]:
        if row["n_splits"] == 0:
            rows.append((row["rule"], "never reached on tune", "", "", "", ""))
            continue
        zero = row["zero_router_difference"]
        text = f"{zero['mean']:+.4f} [{zero['low']:+.4f}, {zero['high']:+.4f}]"
        stock = row.get("stock_difference")
        against = "" if stock is None else f"{stock['mean']:+.4f} [{stock['low']:+.4f}, {stock['high']:+.4f}]"
        cost = f"{1000 * row['cost_usd']:.4g}"
        rows.append((row["rule"], f"{row['quality']:.4f}", cost, text, row["verdict"], against))
    header = ("rule", "quality", "USD / 1,000", "vs Zero router at equal cost", "verdict", "vs stock")
    title = f"{result['policy']} on scorer={result['scorer']}, {result['splits']} splits of {result['source']}"
    print_rows(title, rows, header)


def _show_bench(result: dict[str, Any]) -> None:
    rows = [
        (
            row["case"],
            row["metric"],
            f"{row['ours']:.4g}",
            str(row["peer"] or ""),
            _number(row["peer_value"]),
            _number(row["ratio"]),
        )
        for row in result["rows"]
    ]
    print_rows("bench (ratio > 1: ours is better)", rows, ("case", "metric", "ours", "peer", "peer value", "ratio"))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _show_evaluate(result: dict[str, Any]) -> None:
    policy = result["policy"]
    rows = [("queries", f"{result['n']} ({result['dropped']} left out)"), ("quality", f"{policy['quality']:.4f}")]
    if "cost_usd" in policy:
        rows.append(("USD per 1,000 queries", f"{1000 * policy['cost_usd']:.4g}"))
    if "latency_s" in policy:
        rows.append(("p95 latency", f"{policy['latency_s']['p95']:.3g} s"))
    rows += [(f"share of {tier}", f"{share:.1%}") for tier, share in policy["tier_shares"].items()]
    if "delay_p95_s" in result.get("router", {}):
        rows.append(("p95 of the router's own delay", f"{1000 * result['router']['delay_p95_s']:.3g} ms"))
    evidence = result["evidence"]
    if evidence["zero_router_verdict"]:
        rows.append(("against mixing tiers at random", evidence["zero_router_verdict"]))
    rows += [("constraint missed", text) for text in evidence["constraints_missed"]]
    rows += [(f"{name} lane", _lane(lane)) for name, lane in evidence["lanes"].items() if lane["n"]]
    print_rows("The run's policy on this data", rows)


def _lane(lane: dict[str, Any]) -> str:
    latency = "" if lane["latency_p95_s"] is None else f", p95 latency {lane['latency_p95_s']:.3g} s"
    return f"{lane['share']:.1%} of the queries, quality {lane['quality']['mean']:.4f}{latency}"


def sweep_jobs(out: Path) -> list[dict[str, Any]]:
    """What each job of a sweep left in its folder: status and validation figures; failed ones are listed too."""
    folders = sorted((p for p in out.iterdir() if p.name.isdigit()), key=lambda p: int(p.name)) if out.is_dir() else []
    jobs = []
    for folder in folders:
        job: dict[str, Any] = {"job": int(folder.name), "status": "failed", "run": str(folder)}
        if (folder / "error.txt").is_file():
            job["error"] = (folder / "error.txt").read_text(encoding="utf-8").strip()
        elif (folder / "run.json").is_file() and (folder / "metrics.json").is_file():
            job["status"] = json.loads((folder / "run.json").read_text(encoding="utf-8"))["status"]
            job["what"] = _what(json.loads((folder / "run.json").read_text(encoding="utf-8")))
            policy = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["policy"]
            job.update({name: policy[name] for name in ("quality", "cost_usd") if name in policy})
        jobs.append(job)
    return jobs


def _what(info: dict[str, Any]) -> str:
    """Controller, problem and seed of a job."""
    return f"{info.get('controller')}, {info.get('problem')}, seed {info.get('seed')}"


def show_sweep(out: str, jobs: list[dict[str, Any]]) -> None:
    """A table of a sweep's jobs."""
    rows = [
        (
            str(job["job"]),
            job["status"],
            f"{job['quality']:.4f}" if "quality" in job else "",
            f"{1000 * job['cost_usd']:.4g}" if "cost_usd" in job else "",
            job.get("what", job.get("error", "")),
            job["run"],
        )
        for job in jobs
    ]
    print_rows(f"sweep {out}", rows, ("job", "status", "quality (validation)", "USD / 1,000", "what", "folder"))
