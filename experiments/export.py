"""`routefront export` and `routefront verify`: the policy as the gateway's own config, and the gateway's own word."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import yaml

from experiments.baselines import read_gateway_config
from experiments.certify import read_evidence
from experiments.console import say
from experiments.files import write_json, write_text
from experiments.loading import required
from experiments.runs import open_finished, open_policy
from experiments.settings import ExportSettings, VerifySettings
from experiments.under_load import is_fleet
from simulators.errors import ConfigError, ExportError, InputDataError, MissingDependencyError
from toolkit.export.deployment import deployment_yaml
from toolkit.export.deployment_schema import FILE_NAME, read_deployment
from toolkit.export.litellm import build_config, check_config, refuse_inexpressible, tuned_settings
from toolkit.export.provenance import MARK, certificate_line, certificate_summary, provenance_lines
from toolkit.export.schema import PolicyFile, read_policy
from toolkit.export.vllm_serve import VLLM, vllm_script

TARGETS = ("litellm", "json", "deployment", "vllm")
_OF_FLEET = ("deployment", "vllm")


def run_export(settings: ExportSettings, *, quiet: bool = False) -> dict[str, Any]:
    """Write the policy for one target, checked before it is written."""
    target = _target(settings.target, TARGETS)
    path, policy = open_policy(settings.run)
    output = Path(required(settings.output, "output"))
    evidence = _evidence(path, force=settings.force)
    policy = policy.model_copy(update={"evidence": {**policy.evidence, "certificate": certificate_summary(evidence)}})
    checked_by = "routefront's schema"
    if target == "json":
        text = policy.model_dump_json(indent=2) + "\n"
    elif target in _OF_FLEET:
        text = _deployment_text(target, path, policy, settings)
        checked_by += f", against the flags of vLLM {VLLM}" if target == "vllm" else ""
    else:
        text, checked_by = _litellm_text(policy, settings)
    replaced = _guard(output, force=settings.force)
    change = None if settings.diff is None else _diff(Path(settings.diff), text, output)
    _check_verdict(evidence, path, force=settings.force)
    write_text(output, text)
    if replaced:
        say(f"{output} existed and was replaced.", quiet=quiet)
    for missed in _missed(policy):
        say(f"Warning: on validation the policy misses {missed}.", quiet=quiet)
    verdict = None if evidence is None else evidence["verdict"]
    if verdict != "pass":
        say(certificate_line(policy).replace("WARNING", "Warning", 1), quiet=quiet)
    return {"output": str(output), "target": target, "checked_by": checked_by, "verdict": verdict, "diff": change}


def _evidence(run: Path, *, force: bool) -> dict[str, Any] | None:
    """The run's certificate; with force, a damaged one counts as none."""
    try:
        return read_evidence(run)
    except InputDataError:
        if force:
            return None
        raise


def _check_verdict(evidence: dict[str, Any] | None, run: Path, *, force: bool) -> None:
    """Refuse a policy that failed, or that nobody certified.

    Raises:
        ExportError: With what to do.
    """
    if force:
        return
    if evidence is None:
        raise ExportError(
            f"{run} holds no certificate of this policy: run routefront certify run={run} data.queries=F "
            "data.outcomes=F baseline=WHAT_RUNS_TODAY first, or export all the same with force=true"
        )
    if evidence["verdict"] == "fail":
        said = (evidence.get("sentences") or ["verdict fail"])[0]
        raise ExportError(f"the policy failed its certification: {said} Export all the same with force=true")


def _target(target: str | None, known: tuple[str, ...]) -> str:
    if target not in known:
        raise ConfigError(f"target={target} is not available; known: {', '.join(known)}")
    return target


def _missed(policy: PolicyFile) -> list[str]:
    missed = policy.evidence.get("constraints_missed")
    return [str(m) for m in missed] if isinstance(missed, list) else []


def _deployment_text(target: str, run: Path, policy: PolicyFile, settings: ExportSettings) -> str:
    """The run's deployment as YAML, or as the commands that start it.

    Raises:
        ConfigError: If the run searched no fleet.
    """
    if not is_fleet(policy.world):
        raise ConfigError(
            f"{run} searched no deployment; target={target} needs a run of routefront tune space=deployment"
        )
    deployment = read_deployment(run / FILE_NAME)
    if target == "deployment":
        return deployment_yaml(deployment, policy)
    return vllm_script(deployment, policy, settings.hosts)


def _litellm_text(policy: PolicyFile, settings: ExportSettings) -> tuple[str, str]:
    config = build_config(policy, settings.models or {}, settings.router_name)
    try:
        from toolkit.export.litellm_replay import check_with_litellm

        version = check_with_litellm(config)
        checked_by = f"LiteLLM {version} and routefront"
    except MissingDependencyError:
        problems = check_config(config)
        if problems:
            raise ExportError("; ".join(problems)) from None
        checked_by = "routefront only (LiteLLM is not installed here)"
    tuned_on = policy.scorer.get("litellm_version")
    remarks = (
        f"Checked by {checked_by}; tuned on the score of LiteLLM {tuned_on}. Prove it: routefront verify.",
        *_switched_off(policy),
        "One tuned router per config: LiteLLM limits tuned complexity routers to one without a licence.",
        "Put your provider's model strings under litellm_params.model; keys come from the environment.",
    )
    header = "".join(f"# {line}\n" for line in provenance_lines(policy, remarks))
    text = header + yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    if yaml.safe_load(text) != config:
        raise ExportError("the file would not read back as the config that was checked; rename odd tier names")
    return text, checked_by


def _switched_off(policy: PolicyFile) -> tuple[str, ...]:
    """What of LiteLLM the config turns off, and what it sets because the search did."""
    tuned = tuned_settings(policy).reasoning_override_min_score is not None
    what = "" if tuned else "the reasoning override, "
    lines = (
        f"Off, as they would overrule the boundaries: {what}escalation keywords, the shortcut for",
        "agents' housekeeping calls, the stripping of reminder blocks. Remove a line for LiteLLM's default.",
    )
    if "settings" not in policy.scorer:
        return lines
    return (*lines, "Weights, token thresholds and the reasoning override were tuned together with the boundaries.")


def _guard(output: Path, *, force: bool) -> bool:
    """Whether the file exists and may be replaced.

    Raises:
        ConfigError: If it exists, routefront did not write it, and `force` is not given.
    """
    if not output.exists():
        return False
    if not output.is_file():
        raise ConfigError(f"output={output} is not a file; name a file")
    if not force and not _is_ours(output):
        raise ConfigError(f"output={output} exists and was not written by routefront; name another or give force=true")
    return True


def _is_ours(path: Path) -> bool:
    if MARK in path.read_text(encoding="utf-8", errors="replace")[:200]:
        return True
    try:
        read_policy(path)
    except InputDataError:
        return False
    return True


def _diff(old: Path, text: str, output: Path) -> str:
    if not old.is_file():
        raise InputDataError(f"diff={old}: there is no such file")
    before = old.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    return "".join(difflib.unified_diff(before, text.splitlines(keepends=True), str(old), str(output)))


def run_verify(settings: VerifySettings, *, quiet: bool = False) -> tuple[dict[str, Any], int]:
    """Let the gateway's own code decide each prompt; the second value is the exit code, 3 on any disagreement."""
    from simulators.recorded import read_queries
    from toolkit.export.litellm_replay import check_with_litellm, replay

    _target(settings.target, ("litellm",))
    run = open_finished(settings.run)
    refuse_inexpressible(run.policy)
    queries, _ = read_queries(Path(required(settings.queries, "queries")))
    if settings.config is None:
        config = build_config(run.policy, settings.models or {}, settings.router_name)
    else:
        config = read_gateway_config(Path(settings.config), "config")
    version = check_with_litellm(config)
    decisions = run.decide(queries)
    ours = [run.policy.tiers[k] for k in decisions.tier]
    theirs = replay(config, queries.prompt or ())
    rows = [i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b]
    result: dict[str, Any] = {
        "target": "litellm",
        "litellm_version": version,
        "n": len(queries),
        "n_agree": len(queries) - len(rows),
        "verdict": "pass" if not rows else "fail",
        "disagreements": [
            {"query_id": str(queries.query_id[i]), "policy": ours[i], "gateway": theirs[i]} for i in rows[:20]
        ],
    }
    if settings.output is not None:
        write_json(Path(settings.output), result)
    if rows:
        say(
            f"{len(rows)} of {len(queries)} prompts go elsewhere in LiteLLM, first {result['disagreements'][0]}.",
            quiet=quiet,
        )
    return result, 3 if rows else 0
