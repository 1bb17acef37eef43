# The janitor's image: docker build -f deployments/images/janitor.Dockerfile -t refloat/janitor:0.1.0 .
# Both stages need the same Python: compiled packages fit one minor version.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY refloat refloat
COPY kube kube
COPY deployments/images/rootfs deployments/images/rootfs
RUN PYTHON=python3 deployments/images/rootfs janitor /app

FROM python:${PYTHON}-slim
COPY --from=build /app /app
# -m puts this folder first on Python's path.
WORKDIR /app
USER 65532:65532
CMD ["python3", "-m", "kube.janitor"]
