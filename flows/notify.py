"""Create automations in Prefect that call a webhook: ``python -m flows.notify``.

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
BAD_STATES = ("Failed", "TimedOut", "Crashed", "Late")
RUN_NAME = "{{ flow.name }} {{ flow_run.name }}"
AUTOMATIONS = {  # by name: events, subject, body
    "irgen: kept back": (
        {events.REJECTED},
        "Candidate {{ event.payload.version }} is not served",
        "{{ event.payload.why }}",
    ),
    "irgen: held": (
        {events.HELD},
        "The update is held: nothing is removed",
        "{{ event.payload.message }}",
    ),
    "irgen: drifted": (
        {events.DRIFTED},
        "Drift at revision {{ event.payload.revision }}: a retrain was requested",
        "{{ event.payload.exceeded | map(attribute='name') | join(', ') }}",
    ),
    "irgen: failed": (
        {f"prefect.flow-run.{state}" for state in BAD_STATES},
        f"{RUN_NAME}: {{{{ flow_run.state.name }}}}",
        "{{ flow_run.state.message }} {{ flow_run | ui_url }}",
    ),
}


def make_automations(address: str) -> list[str]:
    """Create the automations, replacing those of the same names; return their names.

    ``address`` accepts a POST of ``{"text": …}``, like a chat's webhook.
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
    assert isinstance(document, UUID)  # a coroutine only inside another one
    for name, (expected, subject, body) in AUTOMATIONS.items():
        automation = Automation(
            name=name,
            trigger=EventTrigger(expect=expected),
            actions=[SendNotification(block_document_id=document, subject=subject, body=body)],
        )
        with get_client(sync_client=True) as client:
            for old in client.read_automations_by_name(name):
                client.delete_automation(old.id)  # the server refuses this client's updates
            client.create_automation(AutomationCore(**automation.model_dump(exclude={"id"})))
    return list(AUTOMATIONS)


def main() -> int:
    """Create the automations; return 2 if there is no webhook, or no server."""
    address = os.environ.get("IRGEN_WEBHOOK", "")
    try:
        if not address:
            raise IrgenError("IRGEN_WEBHOOK is not set: give the address of a webhook")
        serve.wait_for_server(PREFECT_API_URL.value(), seconds=10)
    except IrgenError as error:
        print(f"notify: {error}", file=sys.stderr)
        return 2
    print(f"The webhook is called for: {', '.join(make_automations(address))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
