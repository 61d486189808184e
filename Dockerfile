# A minimal image: Python, git and cvs. Versions of ComfyUI come from a volume (docs/runpod.md).
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
WORKDIR /src
COPY . .
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM ${BASE}
# Libraries that custom nodes load from the system, such as "libgl1 libglib2.0-0" for OpenCV.
ARG APT_PACKAGES=""
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates git openssh-client ${APT_PACKAGES} \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /wheels /wheels
RUN python -m pip install --no-cache-dir /wheels/*.whl && rm -rf /wheels

# Environments and databases, on the container's own disk; writable for any --user.
ENV CVS_LOCAL_ROOT=/var/cache/cvs
RUN mkdir --mode=1777 /var/cache/cvs

EXPOSE 8188
ENTRYPOINT ["cvs"]
CMD ["--help"]
