# The measurements. A trial is run again when its spec or the data plane changed.


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


rule spec_at_share:
    input:
        spec="results/specs/share/{trial}.yaml",
        rates="results/rates.json",
    output:
        "results/specs/{trial}.yaml",
    log:
        "results/logs/specs/{trial}.log",
    wildcard_constraints:
        trial="|".join(DERIVED),
    priority: 10 * len(TRIALS)
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    message:
        "Setting the rate of {wildcards.trial}"
    shell:
        "python -m ftmb.experiments resolve {input.spec} --rates {input.rates} --out {output}"
        " > {log} 2>&1 || {{ cat {log} >&2; exit 1; }}"


rule trial:
    input:
        node=config["node"],
        preflight=ancient("results/preflight.txt"),
        spec="results/specs/{trial}.yaml",
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
    message:
        "Trial {wildcards.trial}"
    shell:
        "ftmb trial {input.spec} --out {params.out} --leave-out > {log} 2>&1"
        " || {{ cat {log} >&2; exit 1; }}"


# Real endpoints. Where this machine has no namespaces or no such programs, a run is left out.
rule endpoints:
    input:
        node=config["node"],
        preflight=ancient("results/preflight.txt"),
        plan=config["endpoints"],
        spec=lambda wildcards: ENDPOINTS[wildcards.run].spec,
    output:
        "results/endpoints/{run}/record.json",
    log:
        "results/logs/endpoints/{run}.log",
    conda:
        "../../envs/conda.yaml"
    threads: ALL_CORES
    resources:
        testbed=1,
    params:
        out=subpath(output[0], parent=True),
        words=lambda wildcards: ENDPOINTS[wildcards.run].words,
    message:
        "Endpoints {wildcards.run}"
    shell:
        "ftmb endpoints {input.spec} {params.words} --out {params.out} --leave-out > {log} 2>&1"
        " || {{ cat {log} >&2; exit 1; }}"
