# The mover's image: docker build -f deployments/images/mover.Dockerfile -t refloat/mover:0.1.0 .
# Both stages need the same Python: compiled packages fit one minor version.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY refloat refloat
COPY vault vault
COPY providers providers
COPY deployments/images/rootfs deployments/images/rootfs
RUN PYTHON=python3 deployments/images/rootfs mover /app

FROM python:${PYTHON}-slim
COPY --from=build /app /app
# The Job runs `python3 -m vault` here: -m puts this folder first on Python's path, so packages and entry points are found.
WORKDIR /app
# Root, and no other user: files of any owner are read, and restored with their owners, which only root may give away. The
# Job drops every capability but those few, mounts the root file system read-only and gives no token (kube/mover_job.py).
USER 0:0
CMD ["python3", "-m", "vault", "--help"]
