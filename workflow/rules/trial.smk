# The measurements. Specs are written by one job each stage; a trial is run again when its own spec
# changes (params.digest), not when the file of another trial was written anew beside it.


rule specs_fixed:
    input:
        experiments=config["experiments"],
    output:
        expand("results/specs/{trial}.yaml", trial=FIXED),
    log:
        "results/logs/specs_fixed.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        tier=config["tier"],
        out=subpath(output[0], parent=True),
        digests=[TRIALS[name].digest for name in FIXED],
    message:
        "Writing the specs of the trials"
    shell:
        "python -m ftmb.experiments specs --stage fixed --config {input.experiments}"
        " --tier {params.tier} --out {params.out} > {log} 2>&1"


rule rates:
    input:
        expand(
            "results/trials/{trial}/record.json",
            trial=[
                n for n, t in TRIALS.items() if t.experiment == experiments.RATE_SOURCE
            ],
        ),
    output:
        "results/rates.json",
    log:
        "results/logs/rates.log",
    # Above every trial, so that the trials that wait for it join the shuffle of the others.
    priority: 10 * len(TRIALS)
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    message:
        "Taking the measured maxima from the throughput trials"
    shell:
        "python -m ftmb.analysis.rates --out {output} {input} > {log} 2>&1"


rule specs_derived:
    input:
        experiments=config["experiments"],
        rates="results/rates.json",
    output:
        expand("results/specs/{trial}.yaml", trial=DERIVED),
    log:
        "results/logs/specs_derived.log",
    priority: 10 * len(TRIALS)
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        tier=config["tier"],
        out=subpath(output[0], parent=True),
        digests=[TRIALS[name].digest for name in DERIVED],
    message:
        "Writing the specs of the trials at a share of the maximum"
    shell:
        "python -m ftmb.experiments specs --stage derived --config {input.experiments}"
        " --tier {params.tier} --rates {input.rates} --out {params.out} > {log} 2>&1"


rule trial:
    input:
        node=config["node"],
        preflight=ancient("results/preflight.txt"),
        spec=ancient("results/specs/{trial}.yaml"),
        rates=lambda wildcards: (
            "results/rates.json" if wildcards.trial in DERIVED else []
        ),
    output:
        "results/trials/{trial}/record.json",
    log:
        "results/logs/trials/{trial}.log",
    priority: lambda wildcards: len(TRIALS) - TRIALS[wildcards.trial].position
    conda:
        "../../envs/conda.yaml"
    threads: ALL_CORES
    resources:
        testbed=1,
    params:
        out=subpath(output[0], parent=True),
        digest=lambda wildcards: TRIALS[wildcards.trial].digest,
    message:
        "Trial {wildcards.trial}"
    shell:
        "ftmb trial {input.spec} --out {params.out} > {log} 2>&1 || {{ cat {log} >&2; exit 1; }}"
