"""Rules and dashboard ask only for metrics that are really there, in expressions that Prometheus can read."""

from __future__ import annotations

import re
from collections.abc import Iterator

import promql_parser
import pytest
import yaml

from remedy.search.metrics import Metrics
from tests.deploy.deployed import DEPLOY, compose, free_ports, read_json
from tests.search.scripted import spec

OTHERS = {
    "up",  # Prometheus itself
    # Ray's system metrics; test_servers.py sees the first three on a real head, the last one needs a GPU
    "ray_node_mem_used", "ray_node_mem_total", "ray_node_cpu_utilization", "ray_node_gpus_utilization",
    # kube-state-metrics
    "kube_cronjob_status_last_schedule_time", "kube_job_status_failed",
}  # fmt: skip

RULES = [
    rule
    for group in yaml.safe_load((DEPLOY / "monitoring/rules.yaml").read_text())["groups"]
    for rule in group["rules"]
]
BOARD = read_json(DEPLOY / "monitoring/dashboard.json")
EXPRESSIONS = [(rule["alert"], rule["expr"]) for rule in RULES] + [
    (panel["title"], target["expr"]) for panel in BOARD["panels"] for target in panel["targets"]
]


@pytest.fixture(scope="module")
def exported() -> Iterator[dict[str, set[str]]]:
    """What a controller exports: series and their labels."""
    metrics = Metrics.of({"REMEDY_METRICS": f"127.0.0.1:{free_ports(1)[0]}"}, spec())
    assert metrics is not None
    metrics._runs.labels("s", "converged", "search").inc()
    metrics._saved.labels("s", "collapse").inc()
    samples = [sample for family in metrics.registry.collect() for sample in family.samples]
    found: dict[str, set[str]] = {}
    for sample in samples:
        found.setdefault(sample.name, set()).update(sample.labels)
    yield found
    metrics.close()


def selectors(expression: str) -> list[promql_parser.VectorSelector]:
    """Every metric that an expression asks for. One that Prometheus cannot read raises."""
    found: list[promql_parser.VectorSelector] = []

    def visit(node: object) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)
        return True

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS, ids=[where for where, _ in EXPRESSIONS])
def test_every_metric_and_label_is_there(where: str, expression: str, exported: dict[str, set[str]]) -> None:
    asked = selectors(expression)
    assert asked
    for selector in asked:
        if selector.name in exported:
            assert {matcher.name for matcher in selector.matchers.matchers} <= exported[selector.name], where
        else:
            assert selector.name in OTHERS, f"{where} asks for {selector.name}, which nobody exports"
    names = {selector.name for selector in asked} & set(exported)
    for labels in re.findall(r"by \(([\w, ]+)\)", expression):
        if names:
            assert set(labels.split(", ")) <= set().union(*(exported[name] for name in names))


def test_every_metric_of_ours_is_looked_at(exported: dict[str, set[str]]) -> None:
    ours = {name for name in exported if not name.endswith(("_created", "_sum", "_count"))}
    assert ours == {selector.name for _, e in EXPRESSIONS for selector in selectors(e)} - OTHERS


def test_names_follow_the_customs_of_prometheus(exported: dict[str, set[str]]) -> None:
    for name in exported:
        assert re.fullmatch(r"remedy_[a-z_]+", name)
        assert not re.search(r"_(ms|minutes|milliseconds)\b", name)


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_an_alarm_says_what_is_wrong_and_what_to_do(rule: dict, exported: dict[str, set[str]]) -> None:
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert {"summary", "runbook"} <= set(rule["annotations"])
    known = {"instance", "job_name", "cronjob"}.union(*exported.values())
    for text in rule["annotations"].values():
        assert set(re.findall(r"\$labels\.(\w+)", text)) <= known


def test_what_is_scraped_is_what_is_served() -> None:
    scraped = yaml.safe_load((DEPLOY / "monitoring/prometheus.yaml").read_text())
    jobs = {job["job_name"]: job for job in scraped["scrape_configs"]}
    head = compose()["services"]["ray-head"]
    first, last = head["environment"]["REMEDY_METRICS"].rpartition(":")[2].split("-")
    want = [f"ray-head:{port}" for port in range(int(first), int(last) + 1)]
    assert jobs["remedy"]["static_configs"][0]["targets"] == want
    assert f"--metrics-export-port={jobs['ray']['dns_sd_configs'][0]['port']}" in head["command"]
    for name in scraped["rule_files"]:
        assert (DEPLOY / "monitoring" / name).exists()


def test_the_checks_check() -> None:
    with pytest.raises(ValueError, match="paren"):
        selectors("sum(rate(remedy_runs_total[5m])")
    assert [selector.name for selector in selectors("a / rate(b[5m]) + c{d='e'}")] == ["a", "b", "c"]
