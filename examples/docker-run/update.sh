#!/bin/sh
# Anywhere that containers run. PHALA_CLOUD_API_KEY is in the environment; the variables are in .env, which goes in
# through standard input, since docker's own --env-file keeps quotes and knows no values of several lines.
# The container can write nothing, has no capability, and cannot gain any.
set -eu

docker run --rm --interactive --read-only --cap-drop=ALL --security-opt=no-new-privileges \
    --env PHALA_CLOUD_API_KEY --env CI --env GITHUB_ACTIONS \
    ghcr.io/phala-secrets/phala-secrets:0.1.0 \
    update --cvm my-app --env-file - --json < .env > outputs.json
