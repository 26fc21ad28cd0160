# One image: it starts jobs on Dataflow as a Flex template, and it is the workers' there and on Flink. Build it from a
# clean checkout:
#   docker build -t IMAGE .
# All have this project as a wheel and what it needs, in the versions of requirements.lock: nothing is installed when a
# job starts.
# BEAM is the version of apache-beam that requirements.lock has for this Python.
ARG BEAM=2.77.0
ARG PYTHON=3.11

FROM apache/beam_python${PYTHON}_sdk:${BEAM} AS worker
FROM gcr.io/dataflow-templates-base/python311-template-launcher-base:20230622_RC00 AS launcher

FROM python:${PYTHON}-slim AS wheel
WORKDIR /project
RUN pip install --no-cache-dir build
COPY setup.py pyproject.toml MANIFEST.in README.md LICENSE ./
COPY configs configs
COPY data data
COPY inference inference
COPY model model
COPY pipelines pipelines
RUN python -m build --wheel --outdir /wheels

FROM python:${PYTHON}-slim
COPY --from=worker /opt/apache/beam /opt/apache/beam
COPY --from=launcher /opt/google/dataflow/python_template_launcher /opt/google/dataflow/python_template_launcher
WORKDIR /template
COPY requirements.lock ./
# uv from the lock file, and by uv all that the wheel needs: what only tests need stays out.
RUN awk '/^[^ #]/ { chosen = /^uv==/ } chosen' requirements.lock \
        | pip install --no-cache-dir --require-hashes -r /dev/stdin
COPY --from=wheel /wheels /wheels
RUN uv pip install --system --no-cache --constraint requirements.lock "$(echo /wheels/*.whl)[aws]"
COPY examples/flink/worker.py /usr/local/bin/
COPY flex/launch.py ./
ENV FLEX_TEMPLATE_PYTHON_PY_FILE=/template/launch.py
# The user is root, as in Beam's own images: the folders that Dataflow mounts for a worker belong to it.
# Workers begin with Beam's program; a template's launcher is called by its path.
ENTRYPOINT ["/opt/apache/beam/boot"]
