"""Help texts. Kept free of imports, so that `routefront --help` comes up at once."""

OVERVIEW = """\
routefront finds, proves and ships the thresholds of an LLM router.

usage: routefront COMMAND [option=value ...] [--json] [-m]

  tune      find the best thresholds on your recorded answers (or a scenario), validate them, write a report
  evaluate  a finished run on other data
  calibrate recordings, traces and latency measurements become a scenario of your own
  simulate  a policy on a scenario's traffic, at several loads: quality, cost, latency, errors
  route     one decision per query of a file, with score and reason
  export    the chosen policy as a gateway's own config (litellm, json), a fleet as YAML or vLLM commands
  certify   does the policy lose quality against a baseline, in any slice? pass, fail or undecided, on unseen data
  power     how many labels each slice needs to show that
  verify    let the real gateway decide every prompt and compare, tier by tier
  diagnose  is the score any good? before any search
  study     tune and validate on many seeded splits: is the gain real?
  compare   fronts of several runs side by side: hypervolume, attainment, paired tests over seeds
  race      every searcher on the same problems with the same initial designs
  control   thresholds that follow the load against thresholds that stay, on unseen traffic
  reproduce a paper's tables on recorded answers, theirs beside ours
  bench     our speed beside a plain reference

Start here:
  routefront tune out=runs/first                       the embedded scenario; open runs/first/report.html
  routefront tune data=recorded data.queries=queries.parquet data.outcomes=outcomes.parquet \\
      scorer=text policy=utility constraints.quality_floor=0.9 out=runs/mine

Options are Hydra overrides. `routefront COMMAND --help` lists them; `--cfg job` prints the whole config;
`-m seed=0,1,2` sweeps, one folder per job. `--json` prints one JSON object on stdout and nothing else there.
Exit codes: 0 done, 1 crash or failed job, 2 bad input, 3 verdict "fail", 4 verdict "undecided", 130 interrupted.
"""

COMMANDS = {
    "tune": """\
routefront tune [option=value ...]: find, choose and validate a policy; writes a run folder with report.html.

Data
  data=scenario scenario=hybrid_api       the embedded scenario (default); data.n_queries=4000
      scenario=FILE.yaml: one of your own, such as routefront calibrate writes
  data=recorded data.queries=F data.outcomes=F [data.tiers=[cheap,...,dear]|auto] [data.prices=F]
      queries:  query_id, prompt; optional slice, session_id, turn, numeric signal columns
      outcomes: query_id, model, score in [0, 1]; optional slice, cost_usd, latency_s, input_tokens, output_tokens
      Parquet, CSV or JSONL by suffix; queries that lack a tier's answer are left out, counted and named
      data.repeats=F: a second outcomes file of the same queries and models; measures the luck of single answers
Score (what the router sees before any answer exists)
  scorer=scenario|text|litellm|column     text is learned from your prompts; litellm is the gateway's own heuristic;
                                          column takes scorer.column=NAME from the queries file
  scorer=rules|classifier|llm_router|memory   a router of the scenario (+routers@scenario.routers=s1 where it has none)
  router.delay_s=0.012 router.usd_per_query=1e-5 router.token_tax=0.03   what deciding takes, whatever the scorer: in
                                          every figure of a policy, in none of single tiers or of mixing at random
Policy
  policy=thresholds|utility               thresholds on the score, or quality - lambda * cost per tier
  policy=target                           a policy trained per query, for a requested quality; needs controller=proteus
  policy.confidence_floor=0.75            below it: policy.low_confidence_tier (default: the dearest)
  calibration=platt|isotonic              a confidence from the calibrated score, for scores that state none
  policy.fallback_tier=TIER               for a query without a score (default: the middle tier)
  lane=none|confidence|eligibility|both   what goes ahead of the policy. confidence: the floor above, at 0.75.
                                          eligibility: a learned head pins queries on which lane.tier (the dearest)
                                          is likely to beat lane.against by more than lane.margin=0.1, whatever cost
                                          and latency: from lane.threshold=0.5 on, or so that lane.recall=0.8 holds
  space=policy                            what is searched: the policy's own parameters (default), or
  space=confidence                        thresholds, the confidence floor and the tier below it
  space=eligibility                       thresholds and the threshold of the lane; needs lane=eligibility or both
  space=slice_thresholds space.slices=[a,b]   thresholds per slice, where the router knows the slice
  space=litellm                           LiteLLM's seven weights, token thresholds, override and boundaries together
  space=deployment                        thresholds and GPUs of every model together, for scenario=self_hosted or one
                                          with a fleet: space.evaluate=simulate|table, .rate_per_s,
                                          .budget_usd_per_hour, .gpu_types=[h100], gpus@scenario.fleet.gpus=types_6
  world=traffic world.load=2              the scenario's traffic: waits, limits, failures (auto: if it says so)
  world=queue world.rate_per_s=2 'world.slots={TIER: 8}'   requests wait for slots: latency under load, simulated
Goal
  objectives=[cost,quality]               also worst_slice, slice:NAME, latency_mean|p50|p95|p99, share_over:SECONDS,
                                          worst_slice_lcb, slice_cvar:SHARE, slice_loss:TIER, slice_loss_ucb:TIER,
                                          fleet_cost (USD per hour of all GPUs)
  constraints.quality_floor=0.9           also slice_floor, slice_floor_lcb (its lower 95 % bound), cost_ceiling_usd,
                                          mean_latency_ceiling_s, p50_ceiling_s, p95_ceiling_s, p99_ceiling_s,
                                          router_budget_s (p95 of the router's own delay),
                                          fleet_ceiling_usd_per_hour, and any other as
  'constraints.bounds=["quality@SLICE >= 0.9","latency_p95@SLICE <= 2.5","share_over:5 <= 0.01"]'
  'constraints.bounds=["slice_cvar:0.3 >= 0.85","slice_loss:TIER <= 0.02","slice_loss_ucb:TIER <= 0.05"]'
                                          the worst 30 % of the traffic by slice; loss to a single tier in any slice
  choose=auto|knee|max_quality|min_cost   auto: min_cost under a floor, max_quality under ceilings, else knee
  choose=min_latency|min_fleet_cost       for space=deployment, where auto takes them under a floor (the latter if
                                          latency is bounded too)
  choose=certified alpha=0.05             the cheapest point shown on the validation split to keep every constraint
Search
  controller=exact                        enumerate; controller.boundaries=auto|all|N, controller.max_evaluations=N
  controller=mobo budget=256              Bayesian optimisation, for spaces that cannot be enumerated and for load:
                                          controller.model=auto|grey|gp, controller.acquisition=auto|closed|qlognehvi,
                                          controller.q=1, controller.n_initial=N
  controller=boute budget=200             Bayesian optimisation for space=deployment: controller.patience=20,
                                          .model, .transforms, .preference, .interaction, .acquisition, .stop_on
  controller=proteus                      Lagrangian RL, one result for a range of requested qualities (at.quality=):
                                          policy=target trains the policy per query; thresholds|utility are searched for
                                          every requested quality, and compared with it. controller.lambda=per_tau|pid|
                                          scalar, .per_query.gradient=exact|sampled, .per_query.features=tfidf|hashed|
                                          sentence, .per_query.compare=false, .levels=65, .tau_range=[0.8,0.95]
  controller=ppo_lagrangian               PPO on the scenario's traffic: thresholds anew for every window, judged on
                                          unseen traffic; gateways get its centre, static. controller.dual=pid|
                                          gradient, controller.window_s=SECONDS, controller.iterations=120
  controller=nsga2|tpe|parego|sobol|random|tutorial   baselines behind the same interface
  axes.margin=0.1 'axes.bounds={cost_usd: [0.01, 1e-5]}'   axes of hypervolume; default: the single tiers' range
Run
  tracking=none|wandb                     W&B run, offline by default, in RUN/wandb; tracking.mode=online uploads
  seed=0 split.tune=0.5 split.validate=0.5 slices.minimum=30 folds=5
  out=DIR                                 default outputs/<date>/<time>; the same command resumes an interrupted run
""",
    "evaluate": """\
routefront evaluate run=DIR data.queries=F data.outcomes=F [output=metrics.json]: a finished run on other data.

  run=DIR                     folder of a finished tune
  data.queries, data.outcomes as for tune; the tiers are the policy's
  data=scenario seed=7        a fresh draw of the scenario instead
  slices.minimum=30           coverage below which a slice is not judged alone
""",
    "calibrate": """\
routefront calibrate data.queries=F data.outcomes=F [traces=F] [latency=F] output=scenario.yaml

A scenario fitted to what you recorded, to be used as scenario=scenario.yaml in tune, simulate and the rest. Every
number has its source beside it; scenario.html and scenario.json hold recorded against fitted. Nothing is fitted to what
the data does not hold: where a scenario needs more, one line says what is missing and which option states it.
  data.queries, data.outcomes, data.tiers, data.prices   as for tune; prices: fitted to costs and tokens, or data.prices
  latency=F                   ttft_s, latency_s; optional output_tokens, inter_token_latency_s, model, provider,
                              error_code (failed; 429: rate limited). Without: latency_s of the outcomes
  latency_models={TIER: MODEL}   where the file calls the tiers otherwise; MODEL@PROVIDER for one provider's rows
  traces=F                    arrival_s; optional input_tokens, output_tokens
  arrivals=auto|poisson|gamma|weibull|diurnal|replay   lengths=recorded|histogram|trace
  rate_per_s=2 duration_s=3600   Poisson arrivals instead of a trace     'slots={TIER: 8}'   requests served at once
  reasoning=[TIER]            its tokens beyond those of the reference tier are hidden reasoning; reference=TIER
  assume.tokens_per_s=50 or 'assume.tokens_per_s={TIER: 50}', assume.ttft_s, ttft_sigma, input_tokens, input_sigma,
  output_tokens, output_sigma, classifier_agreement=0.85   what no file holds; each is written as an assumption
  slices.minimum=30           slices with fewer queries are pooled
  name=NAME check_queries=20000 seed=1
""",
    "simulate": """\
routefront simulate run=DIR|policy=F|shares=[0.6,0.3,0.1] scenario=NAME [load=0.5,1,2,4] [output=metrics.json]

A policy on the traffic of a scenario: requests arrive, wait, are refused, time out, are tried again and fall back. Per
load: quality, cost, latency and time to first token (mean, p50, p95, p99), share within the limit, errors, fallbacks,
by slice, tier and station; a page with figures beside the output.
  run=DIR | policy=F          who routes: a finished run, or a policy.json (in its folder, if its scorer has files)
  shares=[0.6,0.3,0.1]        or no policy yet: so much of the traffic per tier, cheapest first, the harder the dearer
                              by the scenario's own classifier
  scenario=NAME               needs a traffic section
  load=1                      factors of the arrival rates; 0.5,1,2,4 for several, on the same random numbers
  replications=8              draws of queries, arrivals and errors; intervals are Student's t over them. With 1:
                              over batches of consecutive requests, where those are long enough to be independent
  slo_s=2.5                   limit of the service level, seconds; a failed request misses it
  n_queries=20000 seed=1
""",
    "route": """\
routefront route run=DIR queries=F [output=decisions.csv] [at.quality=0.92]: decide every query of a file.

  queries=F                   query_id, prompt and the signal columns the scorer needs
  at.quality=0.92             use the cheapest point of the run's front that reached this quality on the tune split
  output                      CSV: query_id, score, tier, reason; input order
""",
    "export": """\
routefront export run=DIR target=litellm|json|deployment|vllm output=FILE: the policy as a gateway's own config.

  target=litellm              needs scorer=litellm policy=thresholds; checked by LiteLLM's own classes where installed
  models={TIER: provider/model}   LiteLLM model strings; a tier without one gets openai/<tier>
  router_name=routefront      model name that clients call
  target=deployment           with space=deployment: models, GPUs, parallelism and replicas as YAML
  target=vllm                 the same as a script of `vllm serve` commands, with nginx and LiteLLM configs
  hosts={h100-1: 10.0.0.5}    addresses of its machines; without: their names
  diff=FILE                   show the change against an existing config
  force=true                  overwrite a file that routefront did not write
""",
    "verify": """\
routefront verify run=DIR target=litellm queries=F [config=FILE]: the real gateway decides; exit 3 if any tier differs.

  config=FILE                 an exported file; without it, what export would write now
  output=FILE                 the result as JSON
""",
    "certify": """\
routefront certify run=DIR data.queries=F data.outcomes=F baseline=TIER|DIR|CONFIG|litellm-stock [margin=0.02]

Does the run's policy lose quality against the baseline, in any slice, on queries that the search never saw? Both ways
of routing are held against the same recorded answers. Prompts of the run's tune split are left out (and of its
validation split after choose=certified: tune with split.tune=0.5 split.validate=0.25 to keep some).
  pass       a loss below the margin is shown overall and in every covered slice, and every constraint holds (exit 0)
  fail       a loss is shown in some slice (Holm), or a constraint is shown to be broken (exit 3); a loss shown to lie
             below a margin that you gave is tolerated, without one every shown loss fails
  undecided  neither, with the labels still needed per slice (exit 4)
  baseline=...                a model of the data, another run's folder, a LiteLLM config, or LiteLLM's stock boundaries
  baseline_models={NAME: MODEL}   names of the config that are called otherwise in the data
  margin=0.02                 tolerated loss of quality; unset: the smallest that this data can resolve, printed
  alpha=0.05 power=0.8 slices.minimum=30
  output=evidence.json        also written into the run's folder, where export finds it, and into its report
""",
    "power": """\
routefront power data.queries=F data.outcomes=F [run=DIR] [baseline=TIER] [margin=0.02] [output=power.json]

Labels per slice that it takes to show a loss below the margin in every slice at once with probability power=0.8, if
nothing is lost, from this recording's own variance. Without run, before any search: the tier that differs most from
the baseline (default: the best single tier) stands for the policy.
  margin=0.02                 tolerated loss of quality; unset: the smallest that this data can resolve
  alpha=0.05 power=0.8 slices.minimum=30, baseline as for certify
""",
    "diagnose": """\
routefront diagnose [tune's data, scorer and policy options] [output=diagnostics.json]: is the score any good?

For each step from a tier to a dearer one: how well the score ranks the queries where that helps (AUC, average
precision), and what its values mean as a probability (Platt and isotonic calibration, fitted on tune, judged on
validation). Then the share of queries that no boundary can tell apart, and the best gain over mixing tiers at random
that any policy on this score has. No search; tune does the same first.
  gain_margin=0.05            a dearer answer is better if its quality is higher by more than this
""",
    "study": """\
routefront study [tune's options] splits=20 floors=[0.88,0.9,0.92,0.93] output=study.json

Tunes and validates on many seeded splits. For each quality floor: validation quality, cost and the paired difference
to the Zero router (tiers mixed at random) at equal cost with a 95 % interval over queries. With scorer=litellm also
LiteLLM's stock boundaries, and the best boundaries at their cost.
""",
    "compare": """\
routefront compare runs=[DIR,DIR,...] output=DIR: fronts side by side; a sweep's folder stands for its jobs.

  runs=[a,b] or runs=[sweep]  finished tunes of the same data, axes and objectives
  allow_different=true        compare all the same, on the first run's axes; said in every output
  resamples=2000 seed=0       bootstrap over seeds
  tracking=wandb              record the comparison as a W&B run too
Writes comparison.json, table.csv, figures/ and report.html.
""",
    "race": """\
routefront race data_dir=DIR output=DIR [problems=[...]] [only=[...]] [budget=200] [seeds=10] [workers=2]

Every searcher on the same problems, from the same initial designs: efficiency against evaluations, evaluations to
95 %, seconds per suggestion. Writes summary.json, summary.md and race.png; cells that are done are kept.
The whole takes hours on two cores (the tutorial alone more than one); a part, such as the two problems below, minutes.
  data_dir=DIR                folder with outcomes/paretobandit_queries.parquet and the like
  problems=[hybrid_api_queue,synthetic]   those two need no data; others: paretobandit, bfcl, litellm_weights
  only=[mobo_grey,tpe]        some of the searchers
""",
    "reproduce": """\
routefront reproduce paper=proteus data_dir=DIR output=DIR [sets=[...]] [seeds=5] [parts=[...]] [workers=2]
routefront reproduce paper=boute data_dir=DIR output=DIR    a second paper: see below

PROTEUS and every baseline on the same splits by prompt under one margin rule: the paper's Tables 1, 2 and 4, a
requested quality that changes, and what leaks would report. Writes summary.json, summary.md, compliance.png and
changing.png; methods that are done are kept. The whole takes about 45 minutes on two cores.
  data_dir=DIR                folder with <set>_queries.parquet and <set>_outcomes.parquet, or with outcomes/ in it
  sets=[paretobandit,routerbench_part,zeroeval,llmrouter]   or any recording with prompts and costs in DIR
  parts=[methods,ablations,leaks] only=[paretobandit]       ablations and leaks on some of the sets alone
  methods=[thresholds,carrot] baselines to run; PROTEUS and the per-tau calibrated utility always do
  steps=300 rounds=10         less training, for a quick look

routefront reproduce paper=boute data_dir=DIR output=DIR [parts=[deploy,control,search]] [seeds=10] [workers=2]

BOute: what it costs to meet a quality and a P95 by five methods, who gets which GPUs, and searchers on thresholds and
deployments; the paper's figures beside ours. Writes summary.json, summary.md, costs.png and search.png.
  data_dir=DIR                folder with zeroeval_queries.parquet and zeroeval_outcomes.parquet, or outcomes/ in it
  workloads=[gsm,crux] routers=[text,random]
  search.types=[3] search.only=[boute,random]   some of the searchers, on some numbers of GPU types
  seeds=1 parts=[deploy]      a quick look
""",
    "control": """\
routefront control scenario=NAME output=DIR [slo_s=30] [quality_floor=0.9] [methods=[...]] [only=[...]] [seeds=8]

Do thresholds that follow the load beat thresholds that stay? Share answered within slo_s, and cost, of controllers per
window of traffic and of the static front (all thresholds, the best time-sharing of them at equal cost). Settings that
keep the quality floor on the training traffic are played on unseen traffic and queries, paired by seed; those that
miss it there are marked, and a second column compares at equal quality.
Writes summary.json, summary.md, front.png and timeline.png; cells that are done are kept. About 10 min for a day.
  methods=[static,budget_pacing,latency_pacing,queue_pacing,index,assignment,ppo_lagrangian,clairvoyant]
      static          always there: the others start from its points
      *_pacing        a multiplier that follows cost, late share or expected wait takes traffic from dearer tiers
      index           quality - price * cost - price * expected wait, per request
      assignment      a linear programme per window: least cost under quality and slots
      ppo_lagrangian  a policy trained on training traffic (needs torch)
      clairvoyant     thresholds per window that know the unseen traffic: a local optimum, no bound for other rules
  only=[index]                some of the methods now; the summary covers what is done
  seeds=8 train_seeds=2       unseen and training traffics; n_queries=20000 rows of each draw
  window_s=null quick_window_s=null   of thresholds per window; of rules that follow queues
  cost_weight=0.02            attainment that 1 USD per 1,000 requests is worth, to pick the static starting point
  ppo.iterations=80 'ppo.late_ratios=[1,0.7]' clairvoyant.passes=16   how long they may search
  scenario.traffic.duration_s=1800   a short trial
""",
    "bench": """\
routefront bench [cases=[exact,random,search-small]] [runs=3] [output=bench.json]: ours beside the peer; > 1 is better.

  exact, random               enumeration beside plain NumPy
  search-small, search-large  seconds per suggestion of mobo beside BoTorch's tutorial settings
  contention-small, -large    queues: requests x candidates per second beside a heap loop, SimPy, ciw, compiled float64
  contention-growth           the same from 10,000 to 1,000,000 requests and 1 to 1,024 candidates, with peak memory
  contention-event            limits, timeouts, retries, fallback: the event-order kernel beside SimPy and plain Python
  rl-steps, rl-train          environment steps/s and training of a routing policy beside stable-baselines3
""",
}
