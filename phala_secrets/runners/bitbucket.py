"""Bitbucket Pipelines: outputs in ``$BITBUCKET_PIPELINES_VARIABLES_PATH``, as ``NAME=value`` lines.

A later step has those that ``output-variables`` of this one names. What the file held
before stays in front. Secured variables are masked by Bitbucket itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from phala_secrets.runners.base import Runner
from phala_secrets.runners.files import MAX_VARIABLE_BYTES, OutputFile

if TYPE_CHECKING:
    from collections.abc import Mapping

_FILE = "BITBUCKET_PIPELINES_VARIABLES_PATH"


class Bitbucket(Runner):
    """A step of a pipeline."""

    name = "Bitbucket Pipelines"
    ci = True

    def __init__(self, environ: Mapping[str, str], **options: Any) -> None:
        super().__init__(environ, **options)
        if path := environ.get(_FILE):
            self._files.append(OutputFile(path, f"${_FILE}", limit=MAX_VARIABLE_BYTES, keep=True))
