# The base is named by digest, which Dependabot keeps: a release is built on what was tested. PYTHON_IMAGE names
# another.
ARG PYTHON_IMAGE=base
FROM docker.io/library/python:3.13-slim@sha256:7c61056e61ac89e852de05f3dc6fa51a6dd2181797bceed46aa725dd7cb2cd3b AS base

# What is made here goes into /layers, a folder for each layer of the image. The same sources give the same bytes: byte
# code names its source by hash, and a fixed seed keeps the order of sets. It knows lines, but no columns, which only
# tracebacks show: that is a fifth of it.
FROM ${PYTHON_IMAGE} AS build
WORKDIR /build
ENV PYTHONHASHSEED=0 PYTHONNODEBUGRANGES=1 PYTHONDONTWRITEBYTECODE=1
RUN python -m venv --without-pip /opt/phala-secrets
COPY requirements/image.txt .
RUN python -m pip --python /opt/phala-secrets/bin/python install --disable-pip-version-check --no-cache-dir \
        --no-compile --no-deps --only-binary :all: --require-hashes --requirement image.txt
# Byte code is compiled here, since the container of a run may not be able to write any. It is taken as it is
# (unchecked), since the layers of an image keep no reliable file times.
COPY requirements/prune .
RUN cd /opt/phala-secrets/lib/python3*/site-packages \
    && sh /build/prune \
    && python -m compileall -q --invalidation-mode unchecked-hash . \
    && rm /opt/phala-secrets/bin/[!p]* \
    && mkdir -p /layers/libraries \
    && cp -a --parents /opt/phala-secrets /layers/libraries
COPY phala_secrets phala_secrets
COPY entrypoint.py .
RUN cd /opt/phala-secrets/lib/python3*/site-packages \
    && cp -r /build/phala_secrets . \
    && cp /build/entrypoint.py /opt/phala-secrets/ \
    && chmod -R u=rwX,go=rX phala_secrets && chmod 755 /opt/phala-secrets/entrypoint.py \
    && python -m compileall -q --invalidation-mode unchecked-hash phala_secrets \
    && mkdir -p /layers/ours \
    && cp -a --parents "$PWD/phala_secrets" /opt/phala-secrets/entrypoint.py /layers/ours
# The official base has no byte code of its standard library, which would be compiled anew at each start. Importing
# every module once leaves that of what is used, and shows that nothing is missing. (encodings.idna is what looking up
# a host takes, and UTF-16 the order of keys in a compose hash.)
RUN touch /build/before \
    && env -u PYTHONDONTWRITEBYTECODE /opt/phala-secrets/bin/python -c "import encodings.idna; \
        import encodings.utf_16_be, encodings.utf_16_le; \
        import dcap_qvl, eth_account, pkgutil, phala_secrets as package; \
        names = [m.name for m in pkgutil.walk_packages(package.__path__, 'phala_secrets.')]; \
        [__import__(name) for name in names if name[-2:] != '__']" \
    && mkdir -p /layers/standard \
    && find /usr -name '*.pyc' -newer /build/before -exec cp -a --parents {} /layers/standard \;

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="phala-secrets" \
      org.opencontainers.image.description="Puts secrets into confidential VMs on Phala Cloud" \
      org.opencontainers.image.source="https://github.com/phala-secrets/phala-secrets" \
      org.opencontainers.image.licenses="Apache-2.0"
# The official base has a pip, which no run needs. What the base sets for itself, such as GPG_KEY, is written down, so
# that it is never taken for a variable of the user.
RUN find /usr -depth \( -path '*/bin/pip*' -o -path '*-packages/pip*' -o -path '*/ensurepip*' \) -delete \
    && mkdir -p /opt/phala-secrets \
    && ln -s /opt/phala-secrets/entrypoint.py /usr/local/bin/phala-secrets \
    && { env | grep -E '^(GPG_KEY|PYTHON_[A-Z0-9_]+)=' > /opt/phala-secrets/image.env || true; }
# What changes most seldom comes first: a new release with the same libraries is 1 MB to fetch.
COPY --from=build /layers/standard /
COPY --from=build /layers/libraries /
COPY --from=build /layers/ours /
# -I: neither the workspace nor a PYTHON… variable of the job can bring code of its own. -B: nothing is written.
# The first line of entrypoint.py says the same, for CIs that run a shell in the image and call phala-secrets there.
ENTRYPOINT ["/opt/phala-secrets/bin/python", "-IB", "/opt/phala-secrets/entrypoint.py"]
