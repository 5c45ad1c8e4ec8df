"""`routefront certify`: does a run's policy lose quality against a baseline? `routefront power`: how many labels?"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.baselines import Baseline, RunBaseline, TierBaseline, find_baseline
from experiments.console import busy, say
from experiments.evaluate import world_of
from experiments.files import checked_output, write_json, write_text
from experiments.fleet_after import ON_FLEET, without_latency
from experiments.loading import data_files, load_data, required
from experiments.router import base_kind
from experiments.run_folder import now
from experiments.runs import FinishedRun, open_finished
from experiments.settings import CertifySettings, ScenarioData
from experiments.under_load import is_fleet, under_load
from experiments.unseen import unseen_rows
from simulators.columns import need_columns, read_columns, text_column
from simulators.errors import ConfigError, InputDataError
from simulators.outcomes import FloatArray, IntArray, OutcomeTable
from simulators.seeds import spawn_rng
from toolkit.certify.certificate import certify
from toolkit.evaluation.constraints import on_answers, restore_constraints
from toolkit.evaluation.contention import only_waits, with_capacity, without_router
from toolkit.evaluation.slices import coverage
from toolkit.export.schema import read_policy
from toolkit.report.certificate import CertificateReport

EVIDENCE = "evidence.json"
SECTION = "certificate.html"
_DECIDES = {
    "policy",
    "tiers",
    "thresholds",
    "slice_thresholds",
    "utility",
    "target",
    "lanes",
    "scorer",
    "constraints",
    "data_hash",
}
_EXIT_CODES = {"pass": 0, "fail": 3, "undecided": 4}


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A policy and a baseline on the same unseen queries.

    Attributes:
        run: The policy's run.
        baseline: What it is compared with.
        table: Unseen queries, on the tiers of both, without any router's time and money.
        tier, other: `N` tiers of policy and baseline.
        notes: Sentences on the data.
    """

    run: FinishedRun
    baseline: Baseline
    table: OutcomeTable
    tier: IntArray
    other: IntArray
    notes: tuple[str, ...]

    def baseline_table(self) -> OutcomeTable:
        """The queries behind the baseline's own router: a run's, or the policy's where both are LiteLLM's."""
        if isinstance(self.baseline, RunBaseline):
            return self.baseline.run.policy.behind_router(self.table)
        if isinstance(self.baseline, TierBaseline) or base_kind(self.run.policy.scorer) != "litellm":
            return self.table
        return self.run.policy.behind_router(self.table)


_AS_MET = (
    "Requests fail and fall back under this traffic: quality and cost are what the requests of one simulated run met, "
    "the same traffic for policy and baseline. routefront simulate shows how much that varies from run to run."
)


def _side_by_side(ours: OutcomeTable, theirs: OutcomeTable) -> OutcomeTable:
    """Both tables' tiers beside each other: under load the same tier gives each of them something else."""

    def both(name: str) -> FloatArray:
        return np.concatenate([getattr(ours, name), getattr(theirs, name)], axis=1)

    return dataclasses.replace(
        ours,
        tiers=(*ours.tiers, *(f"{tier} (baseline)" for tier in theirs.tiers)),
        quality=both("quality"),
        cost_usd=both("cost_usd"),
        latency_s=both("latency_s"),
        ttft_s=both("ttft_s"),
        input_tokens=both("input_tokens"),
        output_tokens=both("output_tokens"),
        error=both("error").astype(np.bool_),
        occupied_s=None,
        unchecked=None,
        router_cost_usd=None,
        alone=None,
        _hash=[],
    )


def run_certify(settings: CertifySettings, *, quiet: bool = False) -> tuple[dict[str, Any], int]:
    """Certify and write the evidence; the second value is the exit code of the verdict."""
    output = checked_output(settings.output, input_files(settings))
    check_outside(output, settings)
    with busy("Routing the queries with policy and baseline", quiet=quiet):
        compared = compare_policies(settings)
    policy = compared.run.policy
    table, theirs = policy.behind_router(compared.table), compared.baseline_table()
    world = world_of(policy, table, settings.seed)
    latency, notes, other = None, compared.notes, compared.other
    if is_fleet(policy.world):
        table, theirs, notes = without_latency(table), without_latency(theirs), (*notes, ON_FLEET)
    if world is not None:
        rows = np.arange(table.n_queries)
        world_theirs = world_of(policy, theirs, settings.seed) or world
        if theirs.router_delay_s is None:
            world_theirs = without_router(world_theirs)
        table, theirs = with_capacity(table, world), with_capacity(theirs, world_theirs)
        tables = [
            (under_load(table, world, compared.tier), compared.tier),
            (under_load(theirs, world_theirs, compared.other), compared.other),
        ]
        latency = (tables[0][0].latency_s[rows, tables[0][1]], tables[1][0].latency_s[rows, tables[1][1]])
        if not only_waits(world):
            notes = (*notes, _AS_MET)
            table = theirs = _side_by_side(tables[0][0], tables[1][0])
            other = other + len(policy.tiers)
    certificate = certify(
        table,
        compared.tier,
        other,
        coverage=coverage(table, settings.slices.minimum),
        constraints=on_answers(restore_constraints(policy.constraints)),
        margin=settings.margin,
        alpha=settings.alpha,
        power=settings.power,
        rng=spawn_rng(settings.seed, "certify"),
        most_unjudged=settings.most_unjudged,
        latency=latency,
        baseline_table=theirs,
    )
    folder = compared.run.path
    digest, earlier, data_hash = policy_digest(folder), _earlier(folder), compared.table.data_hash
    trial = {
        "baseline": compared.baseline.label,
        "data_hash": data_hash,
        "margin": certificate.labels.margin,
        "alpha": settings.alpha,
        "minimum": settings.slices.minimum,
    }
    same = [e for e in earlier if e.get("baseline") == trial["baseline"]]
    alpha_of = {tuple(e.get(name) for name in trial): float(e["alpha"]) for e in (*same, trial)}
    report = CertificateReport(
        certificate=certificate,
        policy=str(folder),
        baseline=compared.baseline.label,
        source=table.source,
        created=now(),
        attempt=len(alpha_of),
        false_pass_at_most=min(1.0, sum(alpha_of.values())),
        notes=notes,
    )
    found = {**_evidence(report, digest, data_hash, earlier), "minimum": settings.slices.minimum}
    replaced = output.exists()
    write_json(output, found)
    if output.resolve() != (folder / EVIDENCE).resolve():
        write_json(folder / EVIDENCE, found)
    if not _write_section(folder, report):
        say(f"{folder} has no report with a place for the certificate; evidence.json has it all.", quiet=quiet)
    if replaced:
        say(f"{output} existed and was replaced.", quiet=quiet)
    return {**found, "output": str(output), "_record": report}, _EXIT_CODES[certificate.verdict]


def _evidence(report: CertificateReport, digest: str, data_hash: str, earlier: list[dict[str, Any]]) -> dict[str, Any]:
    from toolkit.report.certificate_json import evidence_json

    return {**evidence_json(report), "policy_sha256": digest, "data_hash": data_hash, "earlier": earlier}


def policy_digest(run: Path) -> str:
    """SHA-256 of what a run's policy decides by: what a certificate is valid for."""
    policy = read_policy(run / "policy.json")
    decides = {**policy.model_dump(mode="json", include=_DECIDES), "files": _contents(run / "scorer")}
    if policy.router is not None:
        decides["router"] = policy.router.model_dump(mode="json")
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def _contents(folder: Path) -> dict[str, str]:
    """Checksums of a scorer's files; of an archive, of its members: its time stamps change with each write."""
    found: dict[str, str] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = str(path.relative_to(folder))
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                found |= {f"{name}/{member.filename}": f"{member.CRC:08x}" for member in archive.infolist()}
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def read_evidence(run: Path) -> dict[str, Any] | None:
    """The run's latest certificate, if there is one for this very policy.

    Raises:
        InputDataError: If the file is damaged.
    """
    path = run / EVIDENCE
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputDataError(f"{path} is not JSON ({error}); remove it and run routefront certify again") from error
    if not _is_certificate(found):
        raise InputDataError(f"{path} is no certificate; remove it and run routefront certify again")
    return found if found.get("policy_sha256") == policy_digest(run) else None


def _is_certificate(found: object) -> bool:
    """Whether everything is there that other commands read."""
    return (
        isinstance(found, dict)
        and found.get("verdict") in tuple(_EXIT_CODES)
        and isinstance(found.get("margin"), int | float)
        and isinstance(found.get("earlier"), list)
        and all(isinstance(e, dict) for e in found["earlier"])
        and all(isinstance(e.get("alpha"), int | float) for e in (found, *found["earlier"]))
    )


def _earlier(run: Path) -> list[dict[str, Any]]:
    """One line on each earlier certification of this policy."""
    found = read_evidence(run)
    if found is None:
        return []
    kept = ("verdict", "baseline", "margin", "alpha", "minimum", "n", "data_hash", "created")
    return [*found.get("earlier", []), {name: found.get(name) for name in kept}]


def _write_section(run: Path, report: CertificateReport) -> bool:
    """Put the certificate into the run's report, and keep it for a report that is written again."""
    from toolkit.report.certificate_html import certificate_section

    section = certificate_section(report)
    write_text(run / SECTION, section)
    return _insert(run, section)


def show_certificate(run: Path) -> None:
    """Put the kept section of a certificate that is still valid into the run's report."""
    section = run / SECTION
    if section.is_file() and read_evidence(run) is not None:
        _insert(run, section.read_text(encoding="utf-8"))


def _insert(run: Path, section: str) -> bool:
    """Whether the run has a report with a place for the section."""
    from toolkit.report.certificate_html import with_certificate

    path = run / "report.html"
    if not path.is_file():
        return False
    page = with_certificate(path.read_text(encoding="utf-8"), section)
    if page is None:
        return False
    write_text(path, page)
    return True


def check_outside(output: Path, settings: CertifySettings) -> None:
    """Refuse to write among a run's files, its own `evidence.json` aside.

    Raises:
        ConfigError: If the output lies in the run's or the baseline's folder.
    """
    for folder in (settings.run, settings.baseline):
        inside = folder is not None and Path(folder).is_dir() and Path(folder).resolve() in output.resolve().parents
        if inside and not (folder == settings.run and output.name == EVIDENCE):
            raise ConfigError(f"output={output} lies in the run folder {folder}; name a file outside")


def input_files(settings: CertifySettings) -> list[str | None]:
    """What a command reads and must not overwrite, run folders aside: the data and the baseline."""
    return [*data_files(settings.data), settings.baseline]


def compare_policies(settings: CertifySettings) -> Compared:
    """Load what the run has not seen, and route it with policy and baseline.

    Raises:
        InputDataError: If nothing unseen is left.
    """
    run = open_finished(settings.run)
    baseline = find_baseline(
        required(settings.baseline, "baseline"),
        tuple(run.policy.tiers),
        models_of(settings, run.policy.tiers),
        settings.baseline_models or {},
    )
    wanted = list(dict.fromkeys((*run.policy.tiers, *baseline.tiers)))
    data = load_data(settings.data, settings.scenario, settings.seed, tiers=wanted)
    rows, seen = unseen_rows(run.path, data.table, settings.data, settings.seed)
    table, notes = data.table.take(rows), _seen_note(seen, data.table.n_queries, "the run")
    if isinstance(baseline, RunBaseline):
        rows, seen = unseen_rows(baseline.run.path, table, settings.data, settings.seed)
        notes, table = (*notes, *_seen_note(seen, table.n_queries, "the baseline's run")), table.take(rows)
    return Compared(
        run=run,
        baseline=baseline,
        table=table,
        tier=run.decide(table.queries).tier,
        other=baseline.decide(table),
        notes=(*data.notes, *notes),
    )


def _seen_note(seen: dict[str, int], n_queries: int, who: str) -> tuple[str, ...]:
    left_out = sum(seen.values())
    if not left_out:
        return ()
    parts = " and ".join(f"{n:,} of its {name} split" for name, n in seen.items() if n)
    return (f"{left_out:,} of {n_queries:,} queries have prompts that {who} has seen ({parts}) and were left out.",)


def models_of(settings: CertifySettings, policy_tiers: list[str]) -> tuple[str, ...]:
    """Every model that the data has answers of."""
    if isinstance(settings.data, ScenarioData):
        return tuple(policy_tiers)
    path = Path(required(settings.data.outcomes, "data.outcomes"))
    raw = read_columns(path)
    need_columns(raw, ["model"], path)
    return tuple(np.unique(text_column(raw, "model", path)).tolist())
