# SimMAT with all of its packages, from this folder: `docker build --tag simmat .`, then
# `docker run --rm --shm-size 2g --volume "$PWD:/work" simmat train --modality thermal --data scenes --out run`.
ARG PYTHON=3.13
FROM python:${PYTHON}-slim
COPY . /src
# What pip is given to install PyTorch by, such as that of the CPU build: --build-arg TORCH="..."
ARG TORCH=torch
RUN pip install --no-cache-dir ${TORCH} \
    && pip install --no-cache-dir /src /src/plugins/* \
    && rm -rf /src
WORKDIR /work
ENTRYPOINT ["simmat"]
