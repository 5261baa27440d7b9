# remedy with Ray: the head (where controllers run), the workers, and the nightly scheduler are this one image, because Ray wants the
# same Python and the same versions on every node.
#   docker build -f deploy/docker/remedy.Dockerfile -t remedy:0.1.0-ray2.60.0 .        (in the repository's root)
#
# GPUs: PyPI's torch brings the CUDA libraries it was built with; from the machine comes only the driver, by the NVIDIA container
# toolkit and the two variables below. Where your own code needs more of CUDA: --build-arg BASE=... (any Debian or Ubuntu image with
# Python 3.11). Without a GPU: --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu makes an image that is some GB smaller.
ARG BASE=python:3.11.14-slim-bookworm

FROM ${BASE} AS build
ARG TORCH_INDEX=
WORKDIR /src
RUN python3 -m venv /opt/remedy/venv
ENV PATH=/opt/remedy/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_EXTRA_INDEX_URL=${TORCH_INDEX}
# What remedy needs is a layer of its own: it is made again only when these two files change.
COPY pyproject.toml constraints.txt ./
RUN python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb')); \
        print(*p['build-system']['requires'], *p['project']['dependencies'], *p['project']['optional-dependencies']['examples'], sep='\n')" \
        > wanted.txt \
    # ray[default]: the dashboard, which serves the Jobs API. psycopg: PostgreSQL.
    && pip install --requirement wanted.txt --constraint constraints.txt 'ray[default]==2.60.0' 'psycopg[binary]==3.3.9'
COPY README.md LICENSE ./
COPY api api
COPY search search
COPY spaces spaces
COPY workers workers
RUN pip install --no-deps --no-build-isolation .

FROM ${BASE}
# wget: KubeRay's probes of head and workers call it.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --user-group --create-home --home-dir /home/ray --shell /bin/bash ray \
    && install --directory --owner=ray --group=ray /home/ray/state /home/ray/reports
COPY --from=build /opt/remedy/venv /opt/remedy/venv
# Under /opt/remedy as in the repository, so that deploy/sweep.yaml finds ../examples.
COPY examples /opt/remedy/examples
COPY deploy/sweep.yaml /opt/remedy/deploy/sweep.yaml
COPY deploy/docker/remedy-nightly deploy/docker/remedy-study /usr/local/bin/
ENV PATH=/opt/remedy/venv/bin:$PATH \
    HOME=/home/ray \
    REMEDY_HOME=/home/ray/state \
    RAY_AUTH_MODE=token \
    RAY_USAGE_STATS_ENABLED=0 \
    MLFLOW_DISABLE_TELEMETRY=true \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
# A number, so that Kubernetes can see that it is not root.
USER 1000:1000
WORKDIR /home/ray
CMD ["remedy", "--help"]
