"""Addresses: the pages of a study in MLflow's UI, and any address without its secrets."""

from __future__ import annotations

import json
import re
from urllib.parse import quote

_ORDER = "metrics.`final_metric`"
_COLUMNS = ("outcome", "phase", "symptom", "evidence")
SHARED_VIEW = "mlflow.sharedViewState."
"""Prefix of the experiment tags in which MLflow's UI keeps the views that were shared."""


def runs_link(experiment: str, parent_run: str, *, converged: bool = False, ascending: bool = False) -> str:
    """Return the path of the page that lists a study's runs, sorted by their final metric.

    Without `workflowType` MLflow opens its other face, the one for language models.
    """
    wanted = quote(_filter(parent_run, converged=converged), safe="")  # a terminal ends an address at an apostrophe
    return (
        f"/#/experiments/{quote(experiment)}/runs?searchFilter={wanted}"
        f"&orderByKey={quote(_ORDER)}&orderByAsc={str(ascending).lower()}&workflowType=machine_learning"
    )


def view_link(experiment: str, parent_run: str, *, converged: bool = False) -> str:
    """Return the path of the same page with our columns, where `views` of the study are tags of the experiment."""
    key = _view_key(parent_run, converged=converged)
    return f"/#/experiments/{quote(experiment)}/runs?viewStateShareKey={key}&workflowType=machine_learning"


def views(parent_run: str, *, ascending: bool = False) -> dict[str, str]:
    """Return the experiment tags that make MLflow's UI show outcome, phase, symptom and evidence of each run."""
    columns = [_ORDER, *(f"tags.`remedy.{name}`" for name in _COLUMNS), "attributes.`Duration`"]
    order = {"orderByKey": _ORDER, "orderByAsc": ascending, "selectedColumns": columns}
    return {
        SHARED_VIEW + _view_key(parent_run, converged=converged): json.dumps(
            {"searchFilter": _filter(parent_run, converged=converged), **order}
        )
        for converged in (False, True)
    }


def parent_link(experiment: str, parent_run: str) -> str:
    """Return the path of the study's own page."""
    return f"/#/experiments/{quote(experiment)}/runs/{quote(parent_run)}?workflowType=machine_learning"


def redact(text: str) -> str:
    """Take user names, passwords and tokens out of the addresses in a text."""
    text = re.sub(r"://(?:[^\s/]*|[^\s/:@]*:[^\s]*)@", "://***@", text)  # a password may hold a slash
    return re.sub(r"(?i)([?&](?:[a-z_]*password|token|secret|api_?key)=)[^&\s'\"]+", r"\1***", text)


def _filter(parent_run: str, *, converged: bool) -> str:
    return f"tags.mlflow.parentRunId = '{parent_run}'" + (" and tags.remedy.outcome = 'converged'" if converged else "")


def _view_key(parent_run: str, *, converged: bool) -> str:
    return f"{parent_run}-converged" if converged else parent_run
