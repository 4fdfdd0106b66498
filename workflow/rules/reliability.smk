# What looks for errors beside the trials. A violation is a result, shown on the page, and no
# failure of the workflow: each command has written its file then, though it does not end with 0.


rule simulator:
    input:
        node=config["node"],
    output:
        "results/reliability/sim.json",
    log:
        "results/logs/simulator.log",
    conda:
        "../../envs/conda.yaml"
    threads: ALL_CORES
    params:
        program=config["simulator"],
        schedules=config["schedules"][config["tier"]],
    message:
        "Simulating {params.schedules} schedules"
    shell:
        "{params.program} --jobs {threads} --seeds {params.schedules} --seed-base 1"
        " --json {output} > {log} 2>&1 || test -s {output} || {{ cat {log} >&2; exit 1; }}"


rule plants:
    input:
        node=config["node"],
    output:
        "results/reliability/plants.json",
    log:
        "results/logs/plants.log",
    conda:
        "../../envs/conda.yaml"
    threads: ALL_CORES
    params:
        program=config["simulator"],
        limit=config["plant_limit"][config["tier"]],
        quick="--quick" if config["tier"] == "quick" else "",
    message:
        "Looking for each planted bug"
    shell:
        "{params.program} --plants {params.quick} --seed-base 1 --limit {params.limit}"
        " --json {output}"
        " > {log} 2>&1 || test -s {output} || {{ cat {log} >&2; exit 1; }}"


rule model:
    input:
        sorted(map(str, Path("native/model").glob("*.p*"))),
    output:
        "results/reliability/model.json",
    log:
        "results/logs/model.log",
    conda:
        "../../envs/conda.yaml"
    threads: ALL_CORES
    params:
        only=[f"--only {name}" for name in config["model_checks"][config["tier"]]],
    message:
        "Checking the models of the protocol"
    shell:
        "python native/model/run.py {params.only} --json {output}"
        " > {log} 2>&1 || test -s {output} || {{ cat {log} >&2; exit 1; }}"
