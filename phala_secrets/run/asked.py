"""What the API asks the owner to approve: recomputed, compared with the chain, and shown.

The API says which hash to approve, and an approval lets that code run with the app's keys. So the
hash is recomputed here, from an app-compose that is today's in all but its names. Which one is
today's is not only the API's word: it is the one that the owner registered last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from phala_secrets.cloud import requests
from phala_secrets.dstack.ids import parse_app_id, parse_hash
from phala_secrets.errors import InputError, ProofError
from phala_secrets.flow import Pause, mapped

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from phala_secrets.chain import register
    from phala_secrets.cloud.records import Precondition
    from phala_secrets.dstack.compose_hash import Form
    from phala_secrets.flow import Flow
    from phala_secrets.run.context import Run, Target

T = TypeVar("T")

_APPROVE_NOTHING = "approve nothing; if you know the code behind that hash, pass it as compose-hash"


class Asked(NamedTuple):
    """What to approve, in hex without ``0x``. ``devices`` are the machines that the CVM may be on.

    ``hash_allowed`` and ``missing_devices`` are what the contract says, None where no RPC was asked.
    ``code`` is what would run: label and value.
    """

    app_id: str
    chain_id: int
    compose_hash: str
    devices: tuple[str, ...]
    hash_allowed: bool | None
    missing_devices: tuple[str, ...] | None
    code: tuple[tuple[str, str], ...]
    remarks: tuple[str, ...] = ()

    @property
    def approved(self) -> bool:
        """Whether nothing is left to approve. An unnamed device is never allowed."""
        return bool(self.hash_allowed and self.devices and self.missing_devices == ())

    @property
    def missing(self) -> str:
        """What is left to approve, in words."""
        missing = [] if self.hash_allowed else [f"the compose hash {self.compose_hash}"]
        missing += [f"the device {device}" for device in self.missing_devices or ()]
        return " and ".join(missing) or "a device that Phala Cloud does not name"

    @property
    def outputs(self) -> dict[str, str]:
        """The request, as outputs."""
        return {
            "compose-hash": self.compose_hash,
            "device-id": "\n".join(self.devices),
            "chain-id": str(self.chain_id),
        }


def check(run: Run, target: Target, said: Precondition) -> Asked:
    """Return what the API asks to approve, and check that it is this app with these names."""
    compose_hash, key = _hex(said.compose_hash, "compose hash"), target.key
    app_id = _hex(said.app_id, "app id", parse_app_id)
    if app_id != target.app_id:
        raise ProofError(
            f"Phala Cloud asks to approve for the app {app_id}, not {target.app_id}",
            hint="approve nothing, and do not trust this API",
        )
    if not key.chain_id:
        raise ProofError(
            f"Phala Cloud asks for an on-chain approval for {target.app_id}, which has no Onchain KMS",
            hint="approve nothing, and ask Phala's support",
        )
    remarks = recompute(run, target, key.chain_id, compose_hash)
    devices = target.cvm.device_ids
    wanted = _hex(said.device_id, "device id") if said.device_id else None
    if wanted and wanted not in devices:  # approved is what was asked for, and nothing besides
        where = ", ".join(devices) or "an unnamed device"
        remarks.append(f"Phala Cloud asks for the device {wanted}, but the CVM is on {where}.")
        devices = (wanted,)
    today = approvals(run, app_id, key.chain_id, compose_hash, devices)
    asked = Asked(
        app_id,
        key.chain_id,
        compose_hash,
        devices,
        hash_allowed=today.compose_hash if today else None,
        missing_devices=today.missing_devices if today else None,
        code=code(target),
        remarks=tuple(remarks),
    )
    show(run, asked)
    return asked


def recompute(run: Run, target: Target, chain_id: int, compose_hash: str) -> list[str]:
    """Check that this is the hash of today's app-compose with these names.

    Return remarks about what the check rests on. Raise ProofError if it fails.
    """
    known = run.job.prepared and run.job.prepared.compose_hash
    if known and known != compose_hash:
        raise ProofError(
            f"Phala Cloud asks to approve the compose hash {compose_hash}, but {known} was prepared",
            hint="prepare it again: the app has changed since",
        )
    if not known and run.job.compose_hash == compose_hash:
        return [f"The compose hash {compose_hash} is not recomputed, because compose-hash names it."]
    present = target.plan.previous_hash
    form = target.compose.form if target.compose else None
    if not form or not target.compose:
        raise ProofError(
            f"Phala Cloud asks to approve the compose hash {compose_hash}, which cannot be checked: "
            f"today's app-compose does not hash to today's compose hash {present[:80] or '(none)'!a}",
            hint=_APPROVE_NOTHING,
        )
    _compare(target.compose.content, target.plan.names, form, compose_hash)
    if not run.job.policy.rpc_url:
        return [f"Only Phala Cloud says that today's compose hash {present} is approved: rpc-url checks it."]
    today = approvals(run, target.app_id, chain_id, present, ())
    if today and not today.compose_hash:
        raise ProofError(
            f"Phala Cloud asks to approve the compose hash {compose_hash}, "
            f"but today's compose hash {present} is not approved on chain {chain_id}",
            hint=_APPROVE_NOTHING,
        )
    _check_newest(run, target, chain_id, present, compose_hash)
    return []


def _compare(content: Mapping[str, Any], names: Sequence[str], form: Form, compose_hash: str) -> None:
    from phala_secrets.dstack.compose_hash import candidates

    possible = candidates(content, names, form)
    if compose_hash not in possible:
        expected = next(hash_ for hash_, order in possible.items() if order == "as sent")
        raise ProofError(
            f"Phala Cloud asks to approve the compose hash {compose_hash}, "
            f"but today's app-compose with these names gives {expected}",
            hint=_APPROVE_NOTHING,
        )


def _check_newest(run: Run, target: Target, chain_id: int, present: str, compose_hash: str) -> None:
    """Raise ProofError unless today's compose hash is the one that the owner registered last.

    Any other was approved too, once: it may be old code with a hole, which the API shows as today's.
    """
    from phala_secrets.chain import history

    newest = run.client.run(over_rpc(run, history.newest_registered(target.app_id)))
    if newest in (present, compose_hash):
        return
    for label, value in code(target):
        run.runner.say(f"Phala Cloud asks to approve: {label} {value}")
    last = f"the owner registered {newest} last" if newest else "no registration was found in the blocks read"
    raise ProofError(
        f"Phala Cloud says that the app has the compose hash {present}, "
        f"but on chain {chain_id} {last}; {compose_hash} may be older code",
        hint="compare the code shown above with what should run; "
        f"if it is right, pass the hash: compose-hash: 0x{compose_hash}",
    )


def code(target: Target) -> tuple[tuple[str, str], ...]:
    from phala_secrets.dstack.app_code import code_of

    return tuple(code_of(target.compose.content)) if target.compose else ()


def show(run: Run, asked: Asked) -> None:
    if asked.approved:
        return
    run.runner.say(f"To approve on chain {asked.chain_id}: compose hash {asked.compose_hash}, for this code:")
    for label, value in asked.code:
        run.runner.say(f"  {label}: {value}")


def approvals(
    run: Run, app_id: str, chain_id: int, compose_hash: str, devices: Sequence[str]
) -> register.Approvals | None:
    """Return what the app's contract allows; None without an RPC to ask."""
    from phala_secrets.chain import register

    if not run.job.policy.rpc_url:
        return None
    look = register.approvals(chain_id=chain_id, app=app_id, compose_hash=compose_hash, devices=devices)
    return run.client.run(over_rpc(run, look))


def over_rpc(run: Run, asked: Flow[T], target: Target | None = None) -> Flow[T]:
    """Send a chain's flow over rpc-url, which is set wherever this is called.

    A transaction is noted, and output, before it is sent.
    """
    url = run.job.policy.rpc_url or ""

    def change(step: Any) -> Any:
        if not isinstance(step, Pause):  # what sends a transaction is repeated by the flow alone
            return requests.rpc(url, step, repeatable=step.method != "eth_sendRawTransaction")
        if target and step.transaction not in ("", run.transaction):
            run.transaction = step.transaction
            run.output_of(target, {"transaction-hash": step.transaction})
        return step

    return mapped(asked, change)


def _hex(text: str, what: str, parse: Callable[[str, str], str] = parse_hash) -> str:
    try:
        return parse(text, what)
    except InputError as error:
        raise ProofError(f"Phala Cloud's response: {error.marked}", hint="approve nothing") from None
