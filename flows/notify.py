"""Who is told: automations of Prefect that call a webhook, made by ``python -m flows.notify``.

The webhook's address is a secret: it comes from ``IRGEN_WEBHOOK`` and is kept in a block.
"""

import os
import sys
from uuid import UUID

from prefect.automations import Automation
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import get_client
from prefect.events.actions import SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger
from prefect.settings import PREFECT_API_URL
from prefect.types import SecretDict

from flows import events, serve
from irgen.errors import IrgenError

BLOCK = "irgen-webhook"
TROUBLE = ("Failed", "TimedOut", "Crashed", "Late")
NAMED = "{{ flow.name }} {{ flow_run.name }}"
TOLD = {  # an automation's name: the events, what is said in a line, and more
    "irgen: kept back": (
        {events.REJECTED},
        "Candidate {{ event.payload.version }} is not served",
        "{{ event.payload.why }}",
    ),
    "irgen: drifted": (
        {events.DRIFTED},
        "Drift at revision {{ event.payload.revision }}: a retrain was asked for",
        "{{ event.payload.exceeded | map(attribute='name') | join(', ') }}",
    ),
    "irgen: trouble": (
        {f"prefect.flow-run.{state}" for state in TROUBLE},
        f"{NAMED}: {{{{ flow_run.state.name }}}}",
        "{{ flow_run.state.message }} {{ flow_run | ui_url }}",
    ),
}


def tell(address: str) -> list[str]:
    """Makes the automations, or brings those of the same names up to date; gives their names.

    ``address`` takes a POST of ``{"text": …}``, as the webhooks of chats do.
    """
    block = CustomWebhookNotificationBlock(
        name=BLOCK,
        url="{{url}}",
        json_data={"text": "{{subject}}\n{{body}}"},
        headers=None,
        cookies=None,
        secrets=SecretDict({"url": address}),
    )
    document = block.save(BLOCK, overwrite=True)
    assert isinstance(document, UUID)  # a coroutine only for who is one
    for name, (expected, subject, body) in TOLD.items():
        made = Automation(
            name=name,
            trigger=EventTrigger(expect=expected),
            actions=[SendNotification(block_document_id=document, subject=subject, body=body)],
        )
        _put(AutomationCore(**made.model_dump(exclude={"id"})))
    return list(TOLD)


def _put(automation: AutomationCore) -> None:
    with get_client(sync_client=True) as client:
        for each in client.read_automations_by_name(automation.name):
            client.delete_automation(each.id)  # its server refuses this client's updates
        client.create_automation(automation)


def main() -> int:
    """Makes the automations; 2 if there is no webhook, or no server."""
    address = os.environ.get("IRGEN_WEBHOOK", "")
    try:
        if not address:
            raise IrgenError("IRGEN_WEBHOOK is not set: give the address of a webhook")
        serve.meet(PREFECT_API_URL.value(), seconds=10)
    except IrgenError as error:
        print(f"notify: {error}", file=sys.stderr)
        return 2
    print(f"The webhook is called for: {', '.join(tell(address))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
