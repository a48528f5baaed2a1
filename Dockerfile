# syntax=docker/dockerfile:1
# An environment to run a clone in, and the commands `carb ...` for use without one.
#
#   docker build --target cpu -t carb .            # or: --target cuda -t carb:cuda
#   docker run --rm -v "$PWD:/clone" carb           # the demo; on GPUs: --gpus all --shm-size 8g carb:cuda
#   docker run --rm -v "$PWD:/clone" carb carb eval --images photos
#
# Files are written as user 1000; another one: --build-arg UID=$(id -u).

ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS base
ARG UID=1000
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid "${UID}" carb \
    && install --directory --owner carb /clone
USER carb
RUN python -m venv /home/carb/venv \
    # A mounted clone belongs to somebody else, where user ids differ.
    && git config --global --add safe.directory /clone
ENV PATH=/home/carb/venv/bin:${PATH} \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1
WORKDIR /home/carb/build
# Dependencies first: this layer stays while only code changes.
COPY --chown=carb pyproject.toml .
RUN python -c "import tomllib; \
    print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
    > requirements.txt

FROM base AS wheel
COPY --chown=carb . .
RUN pip wheel --no-deps --wheel-dir /home/carb/dist .

# torch without CUDA, from the index that pytorch.org names for it.
FROM base AS cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --extra-index-url "${TORCH_INDEX}" --requirement requirements.txt
RUN --mount=type=bind,from=wheel,source=/home/carb/dist,target=/tmp/dist \
    pip install --no-deps /tmp/dist/*.whl
WORKDIR /clone
CMD ["dvc", "repro"]

# torch as PyPI has it, which for Linux brings CUDA: several GB. The host needs its driver alone.
FROM base AS cuda
RUN pip install --requirement requirements.txt
RUN --mount=type=bind,from=wheel,source=/home/carb/dist,target=/tmp/dist \
    pip install --no-deps /tmp/dist/*.whl
WORKDIR /clone
CMD ["dvc", "repro"]
