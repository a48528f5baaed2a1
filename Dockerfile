# README's two commands in a container. This file was not built where the project is developed.
#
#   docker build -t carb .
#   docker run --rm -v "$PWD/results:/carb/results" carb      # on GPUs: --gpus all --shm-size 8g
FROM python:3.12-slim
RUN apt-get update && apt-get install --yes --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /carb
COPY . .
RUN pip install --no-cache-dir -e .
CMD ["dvc", "repro"]
