# The data plane, and whether this machine can run it.


rule native:
    input:
        [
            path
            for pattern in ("*.c", "*.h", "meson.build", "meson.options")
            for path in map(str, sorted(Path("native").rglob(pattern)))
        ],
    output:
        config["node"],
    log:
        "results/logs/native.log",
    conda:
        "../../envs/conda.yaml"
    threads: ALL_CORES
    params:
        target=config["build_target"],
    message:
        "Building the data plane"
    shell:
        "make {params.target} > {log} 2>&1"


rule preflight:
    input:
        node=config["node"],
    output:
        "results/preflight.txt",
    log:
        "results/logs/preflight.log",
    conda:
        "../../envs/conda.yaml"
    message:
        "Looking at what this machine can run"
    shell:
        "ftmb doctor > {output} 2> {log} || {{ cat {output} {log} >&2; exit 1; }}"
