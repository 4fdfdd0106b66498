# Loading and checking of the configuration; the plan of the trials.
import os
import sys
from pathlib import Path

from snakemake.utils import validate


envvars:
    "PATH",


validate(config, "../schemas/config.schema.yaml")

# The package is found although it may not be installed, and the commands of the environment that
# runs snakemake are found although it may not be activated.
sys.path.insert(0, str(Path(workflow.basedir).parent))
os.environ["PATH"] = os.pathsep.join(
    [str(Path(sys.executable).parent), os.environ["PATH"]]
)

from ftmb import experiments
from ftmb import planned

EXPERIMENTS = experiments.load(Path(config["experiments"]))
TRIALS = {trial.id: trial for trial in experiments.plan(EXPERIMENTS, config["tier"])}
ENDPOINTS = planned.plan(Path(config["endpoints"]), config["tier"])
PEERS = planned.plan(Path(config["peers"]), config["tier"])
DERIVED = [name for name, trial in TRIALS.items() if trial.rate_share is not None]

# Specs are not made by a rule: one job for all would run every trial again when one spec changes,
# and a job for each would take longer than it is worth. Files that are right are left alone.
experiments.write_specs(TRIALS.values(), Path("results/specs"))

FIGURES = [
    "throughput",
    "latency",
    "tail",
    "snapshots_in_time",
    "snapshots_tail",
    "snapshots_ratios",
    "snapshots_tail_half",
    "snapshots_ratios_half",
    "snapshots_pauses",
    "snapshots_stop",
    "snapshots_sent",
    "cow_cost",
    "timeline",
    "recovery_load",
    "recovery_period",
    "crashes",
    "cow_recovery",
    "cow_phases",
    "cow_replay",
    "snapshots_trade",
    "schedules",
    "function_sweep",
    "function_pipeline",
    "endpoints_window",
    "endpoints_pages",
    "peers",
    "memory",
    "logs",
    "noise",
]


# A measuring rule asks for more cores than any machine has. Snakemake scales that down to all
# cores, so that neither another trial nor a plot nor a compiler ever runs beside it.
ALL_CORES = 999


wildcard_constraints:
    trial="[a-z0-9_-]+",
    run="[a-z0-9-]+",
