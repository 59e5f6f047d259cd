# Everything here sets itself up: `make demo` and `make test` are all that a fresh clone takes.
# What is missing of Debian's packages is installed for root, and named for anybody else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PYTHON
# The proof, the envelope, the guest, the sources and what a runner prints: every branch.
COVERED := */key_proof.py,*/encryption.py,*/env_file.py,*/guest_check.py,*/sources.py,*/dotenv.py,*/runners/*.py
SYSTEMD := ls /usr/lib*/systemd/libsystemd-shared-*.so /usr/lib/*/systemd/libsystemd-shared-*.so | grep -q .

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-pages lint format docs pictures test-image reproducible test-wheel wheel sbom publish-wheel test-chain test-interop newest examples test-attestation verify-known-root fuzz mutants bench cost lock clean

help: ## what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv-demo/ready ## three acts on a simulated CVM: a plan is refused, an update arrives, a forged key is refused
	@.venv-demo/bin/python examples/demo/demo.py

# A worker more than there are cores, since stories wait for processes of their own.
PYTEST = $(BIN)/python -m pytest --numprocesses $$(($$(getconf _NPROCESSORS_ONLN) + 1)) --dist worksteal

test: $(VENV)/ready systemd ## the tests, with coverage of branches
	$(PYTEST) --cov --cov-report=
	@$(BIN)/python -m coverage report --fail-under=100 --include='$(COVERED)' >$(VENV)/coverage.txt || { cat $(VENV)/coverage.txt >&2; \
	    echo "error: a branch of what has to be covered whole is not: $(COVERED)" >&2; exit 1; }

test-pages: $(VENV)/ready ## run what README, docs/ and examples/ show, as it stands
	$(PYTEST) tests/pages

lint: $(VENV)/ready tests/lint/node_modules ## style, types, tables, workflows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python docs/write.py --check
	tests/lint/workflows $(BIN)/zizmor

format: $(VENV)/ready ## bring the code into its form
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

docs: $(VENV)/ready ## write the inputs and outputs into README.md, action.yml and docs/
	$(BIN)/python docs/write.py

pictures: $(VENV)/ready ## draw the pictures of the README anew, in docs/pictures
	@.ci/need 'command -v cmark-gfm && command -v chromium' cmark-gfm chromium fonts-noto-core fonts-liberation
	$(BIN)/python docs/pictures/draw.py

test-image: $(VENV)/ready ## build the image and run it (root; PYTHON_IMAGE=… for another base than Debian's packages)
	@.ci/need 'command -v buildah && command -v debootstrap' buildah debootstrap
	$(BIN)/python -m pytest tests/image

reproducible: $(VENV)/ready ## build the image twice, and compare the digests of our layers (as test-image)
	@.ci/need 'command -v buildah && command -v debootstrap' buildah debootstrap
	$(BIN)/python -m pytest tests/image/reproducible.py

wheel: $(VENV)/ready ## build the wheel into dist/
	rm -rf dist
	$(BIN)/python -m hatchling build --target wheel

test-wheel: wheel ## build the wheel, install it into an empty environment and do the main job with it
	$(BIN)/python -m pytest tests/wheel

sbom: wheel .venv-release/ready ## list what the wheel brings along, as CycloneDX, into dist/
	$(PYTHON) -m venv --clear --without-pip .venv-wheel
	$(BIN)/uv pip install --quiet --python .venv-wheel --constraint requirements/image.txt \
	    "$$(echo dist/*.whl)[attest,chain]"
	.venv-release/bin/cyclonedx-py environment --output-reproducible --of JSON --pyproject pyproject.toml \
	    --output-file dist/phala-secrets.cdx.json .venv-wheel

# In release.yml alone: the job's own identity signs, and is the login. What is in dist/ was built and tested before.
publish-wheel: .venv-release/ready
	.venv-release/bin/python -m pypi_attestations sign dist/*.whl
	.venv-release/bin/uv publish --trusted-publishing always dist/*.whl

test-chain: $(VENV)/ready tests/anvil/node_modules ## approvals on a real local chain (anvil)
	$(BIN)/python -m pytest tests/anvil

test-interop: $(VENV)/ready .venv-interop/ready tests/interop/node_modules ## against the official command and SDKs
	$(BIN)/python -m pytest tests/interop

newest: $(VENV)/ready ## take the newest official command and SDKs into tests/interop, for test-interop
	@.ci/need 'command -v npm' nodejs npm
	npm install --prefix tests/interop --save-exact --ignore-scripts --no-audit --no-fund --silent \
	    $$(node -p "Object.keys(require('./tests/interop/package.json').dependencies).map(name => name + '@latest').join(' ')")
	sed -i 's/==.*//' tests/interop/requirements.in
	$(LOCK) --no-emit-package asyncio --upgrade tests/interop/requirements.in --output-file tests/interop/requirements.txt

examples: $(VENV)/ready .venv-recipes/ready tests/recipes/node_modules .tools/age/ready ## examples and recipes, with the real tools
	@.ci/need 'command -v jq && command -v curl && command -v git' jq curl git
	$(PYTEST) tests/pages/test_examples.py tests/recipes

# Real evidence is not in this repository.
ATTESTATION ?= ../shared/attestation
REAL = test -e $(ATTESTATION)/central-kms-root.json || { \
	    echo "error: no real evidence in $(ATTESTATION)" >&2; \
	    echo "hint: name a folder that has some: make $@ ATTESTATION=…" >&2; exit 1; }

test-attestation: $(VENV)/ready ## real evidence, of the folder ATTESTATION
	@$(REAL)
	ATTESTATION=$(abspath $(ATTESTATION)) $(BIN)/python -m pytest tests/attestation

verify-known-root: $(VENV)/ready ## the root that ships with us, against the record in ATTESTATION
	@$(REAL)
	$(BIN)/python -m tests.attestation.known_root $(ATTESTATION)/central-kms-root.json

fuzz: .venv-attack/ready ## inputs nobody thought of, guided by coverage (FUZZ_SECONDS=60, for amd64)
	.venv-attack/bin/python tests/fuzz/fuzz.py $(TARGETS)

mutants: .venv-attack/ready systemd ## break the code in small ways, to see that a test fails each time
	.venv-attack/bin/python tests/mutants/mutants.py

bench: $(VENV)/ready .venv-bench/ready .venv-sdk/ready tests/bench/node_modules ## ratios against the official CLI and SDK
	$(BIN)/python -m tests.bench.bench $(ROUNDS)

cost: wheel ## what a bare runner fetches and writes for one update, against the official CLI (as test-image)
	@.ci/need 'command -v buildah && command -v debootstrap' buildah debootstrap
	@.ci/need 'command -v npm' nodejs npm
	$(BIN)/python -m tests.bench.cost

# One resolution of everything, and lists taken out of it. Without cytoolz (14 MB in the image) eth-utils takes toolz,
# which is here with it.
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--custom-compile-command 'make lock' --no-emit-package cytoolz
ALL := --group dev --group attack --group release --extra attest --extra chain pyproject.toml
LIST := $(LOCK) --constraint requirements/lock.txt
lock: $(VENV)/ready ## lock the dependencies again (UPGRADE=--upgrade for newer ones)
	$(LOCK) $(UPGRADE) $(ALL) --output-file requirements/lock.txt
	rm -f requirements/image.txt requirements/dev.txt requirements/attack.txt requirements/release.txt requirements/uv.txt
	$(LIST) --extra attest --extra chain pyproject.toml --output-file requirements/image.txt
	$(LIST) --extra attest --extra chain --group dev pyproject.toml --output-file requirements/dev.txt
	$(LIST) --extra attest --extra chain --group test --group attack pyproject.toml --output-file requirements/attack.txt
	$(LIST) --group pyproject.toml:release --output-file requirements/release.txt
	$(LIST) --group pyproject.toml:lock --output-file requirements/uv.txt
	$(LOCK) --no-emit-package asyncio $(UPGRADE) tests/interop/requirements.in --output-file tests/interop/requirements.txt
	$(LOCK) $(UPGRADE) tests/recipes/requirements.in --output-file tests/recipes/requirements.txt

clean: ## remove what was set up
	rm -rf $(VENV) .venv-* .tools dist tests/*/node_modules

.PHONY: python systemd
python:
	@.ci/need 'command -v $(PYTHON)' python3
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "error: $$($(PYTHON) -V) is too old, Python 3.11 or later is needed" >&2; \
	    echo "hint: name one that is not: make PYTHON=python3.13 …" >&2; exit 1; }
	@.ci/need '$(PYTHON) -c "import venv, ensurepip"' python3-venv

systemd: # the tests ask systemd's own parser
	@.ci/need '$(SYSTEMD)' libsystemd-shared

$(VENV)/ready: requirements/dev.txt | python
	.ci/environment $(VENV) $<
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# What the image has, and nothing that develops or tests it.
.venv-demo/ready: requirements/image.txt | python
	@echo "installing what the demo runs into .venv-demo, once" >&2
	@.ci/environment .venv-demo $<
	@for packages in .venv-demo/lib/python3*/site-packages; do echo "$(CURDIR)" > "$$packages/here.pth"; done
	@touch $@

.venv-interop/ready: tests/interop/requirements.txt | python
	.ci/environment .venv-interop $<
	@touch $@

.venv-release/ready: requirements/release.txt | python
	.ci/environment .venv-release $<
	@touch $@

.venv-recipes/ready: tests/recipes/requirements.txt | python
	.ci/environment .venv-recipes $<
	@touch $@

# Debian's package, unpacked here: nothing is installed, and nobody has to be root.
.tools/age/ready:
	@.ci/need 'command -v apt-get && command -v dpkg-deb' apt dpkg
	mkdir -p $(@D)
	cd $(@D) && { apt-get -qq download age || { apt-get -qq update && apt-get -qq download age; }; }
	dpkg-deb --extract $(@D)/age_*.deb $(@D)
	@touch $@

.venv-attack/ready: requirements/attack.txt | python
	.ci/environment .venv-attack $<
	@touch $@

# As the Dockerfile makes it: the locked dependencies without what no run can reach, the package itself, compiled.
.venv-bench/ready: requirements/image.txt requirements/prune $(shell git ls-files phala_secrets) | $(VENV)/ready
	$(PYTHON) -m venv --clear --without-pip .venv-bench
	$(BIN)/uv pip install --quiet --link-mode copy --python .venv-bench --no-deps --require-hashes -r $<
	cp -r phala_secrets .venv-bench/lib/python3*/site-packages/
	cd .venv-bench/lib/python3*/site-packages && sh $(CURDIR)/requirements/prune \
	    && PYTHONNODEBUGRANGES=1 $(CURDIR)/.venv-bench/bin/python -m compileall -q --invalidation-mode unchecked-hash .
	@touch $@

.venv-sdk/ready: tests/bench/sdk-requirements.txt tests/bench/sdk-needs.txt | python
	$(PYTHON) -m venv --clear .venv-sdk
	.venv-sdk/bin/python -m pip install --quiet --disable-pip-version-check -r tests/bench/sdk-needs.txt
	.venv-sdk/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r tests/bench/sdk-requirements.txt
	@touch $@

tests/%/node_modules: tests/%/package-lock.json
	@.ci/need 'command -v npm' nodejs npm
	npm ci --prefix $(@D) --ignore-scripts --no-audit --no-fund --silent
	@touch $@
