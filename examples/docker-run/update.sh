#!/bin/sh
# For any machine that runs containers. PHALA_CLOUD_API_KEY is in the environment. The command reads .env from standard
# input, since docker's own --env-file keeps quotes and has no multi-line values. The container can write nothing, has
# no capability, and cannot gain any.
set -eu

docker run --rm --interactive --read-only --cap-drop=ALL --security-opt=no-new-privileges \
    --env PHALA_CLOUD_API_KEY --env CI --env GITHUB_ACTIONS \
    ghcr.io/phala-secrets/phala-secrets:0.1.0 \
    update --cvm my-app --env-file - --json < .env > outputs.json
