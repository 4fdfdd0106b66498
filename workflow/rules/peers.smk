# Beside conntrackd and keepalived. Where this machine has no namespaces or no such daemons, a run
# is left out, and its record says why.


rule peers:
    input:
        node=config["node"],
        preflight=ancient("results/preflight.txt"),
        spec=lambda wildcards: PEERS[wildcards.run].spec,
    output:
        "results/peers/{run}/record.json",
    log:
        "results/logs/peers/{run}.log",
    conda:
        "../../envs/conda.yaml"
    threads: ALL_CORES
    resources:
        testbed=1,
    params:
        out=subpath(output[0], parent=True),
        words=lambda wildcards: PEERS[wildcards.run].words,
    message:
        "Beside conntrackd: {wildcards.run}"
    shell:
        "ftmb peers {input.spec} {params.words} --out {params.out} --leave-out > {log} 2>&1"
        " || {{ cat {log} >&2; exit 1; }}"
