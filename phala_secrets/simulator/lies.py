"""The lies of an API or of an impersonator: what each says, and how the simulator tells it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from phala_secrets.simulator.kms import Kms

if TYPE_CHECKING:
    from collections.abc import Callable

    from phala_secrets.simulator.cloud import Cloud
    from phala_secrets.simulator.wire import Answer, Request

_OTHER_CODE = "66" * 32
_OTHER_APP = "66" * 20
_FOR_EVER = 1e9


class Lie(NamedTuple):
    """A lie. ``tell`` makes a cloud tell it. ``on_chain`` is whether it needs an app on chain."""

    what: str
    tell: Callable[[Cloud], None]
    on_chain: bool = False


def tell(cloud: Cloud, name: str) -> None:
    """Make a cloud tell the lie of this name."""
    LIES[name].tell(cloud)


def _forge_keys(cloud: Cloud) -> None:
    """Replace each KMS with a forged one. The guests keep the genuine one."""
    for index, genuine in enumerate(cloud.kmses):
        forger = Kms(
            genuine.slug,
            b"forger",
            chain_id=genuine.chain_id,
            contract_address=genuine.contract_address,
        )
        forger.id, forger.nodes = genuine.id, genuine.nodes
        cloud.kmses[index] = forger


def _swap_keys(cloud: Cloud) -> None:
    other = Kms("other", b"forger").app_public_key(_OTHER_APP)
    for kms in cloud.kmses:
        kms.tamper = lambda answer: {**answer, "public_key": other}


def _move_names(cloud: Cloud) -> None:
    for cvm in [*cloud.cvms]:
        cloud.cvms.remove(cvm)
        cloud.add_cvm(
            cvm.name,
            app_id=_OTHER_APP,
            kms=cvm.kms,
            docker_compose_file=cvm.app_compose["docker_compose_file"],
            environment=cvm.environment,
        )


def _ask_for_other_code(cloud: Cloud) -> None:
    def tamper(_request: Request, answer: Answer) -> Answer:
        if answer.status == 465:
            asked: Any = answer.body
            for detail in asked.get("details", ()):
                if detail["field"] == "compose_hash":
                    answer.body = json.loads(json.dumps(asked).replace(detail["value"], _OTHER_CODE))
        return answer

    cloud.tamper = tamper


def _show_old_evidence(cloud: Cloud) -> None:
    cloud.attests_after = _FOR_EVER


LIES = {
    "forged-key": Lie("a forged key, signed by a root that the API publishes as its own", _forge_keys),
    "swapped-key": Lie("another key under the genuine signature", _swap_keys),
    "other-app": Lie("the CVM's name belongs to another app", _move_names),
    "other-code": Lie("an approval request for other code", _ask_for_other_code, on_chain=True),
    "old-evidence": Lie("evidence of the previous boot", _show_old_evidence),
}
"""The lies by name."""
