# From records to the page. Nothing here measures; all of it can be repeated without a testbed.


rule plan:
    input:
        experiments=config["experiments"],
    output:
        "results/plan.json",
    log:
        "results/logs/plan.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        tier=config["tier"],
    message:
        "Writing the list of trials"
    shell:
        "python -m ftmb.experiments plan --config {input.experiments} --tier {params.tier}"
        " --out {output} > {log} 2>&1"


rule analysis:
    input:
        plan="results/plan.json",
        claims=config["claims"],
        # As far as they were made: nothing else may run beside them, so no rule makes them.
        benches=sorted(map(str, Path("results/bench").glob("*.*"))),
        records=expand("results/trials/{trial}/record.json", trial=TRIALS),
        endpoints=expand("results/endpoints/{run}/record.json", run=ENDPOINTS),
        peers=expand("results/peers/{run}/record.json", run=PEERS),
        reliability=expand(
            "results/reliability/{kind}.json", kind=["sim", "plants", "model"]
        ),
    output:
        expand(
            "results/analysis/{table}.csv",
            table=["trials", "recoveries", "checks", "noise", "claims"],
        ),
    log:
        "results/logs/analysis.log",
    conda:
        "../../envs/analysis.yaml"
    message:
        "Computing tables and verdicts from {input.plan}"
    shell:
        "ftmb report --step analysis --claims {input.claims} > {log} 2>&1"
        " || {{ cat {log} >&2; exit 1; }}"


rule figures:
    input:
        rules.analysis.output,
    output:
        expand("results/figures/{figure}.{kind}", figure=FIGURES, kind=["svg", "csv"]),
    log:
        "results/logs/figures.log",
    conda:
        "../../envs/analysis.yaml"
    message:
        "Drawing the figures"
    shell:
        "ftmb report --step figures > {log} 2>&1 || {{ cat {log} >&2; exit 1; }}"


rule report:
    input:
        tables=rules.analysis.output,
        figures=rules.figures.output,
        claims=config["claims"],
        template="report/page.html.j2",
        style="report/style.css",
        texts="report/sections.yaml",
    output:
        report(
            "results/report.html",
            caption="../../report/workflow.rst",
            category="Evaluation",
        ),
    log:
        "results/logs/report.log",
    conda:
        "../../envs/analysis.yaml"
    message:
        "Writing {output}"
    shell:
        "ftmb report --step page --claims {input.claims} --out {output} > {log} 2>&1"
        " || {{ cat {log} >&2; exit 1; }}"
