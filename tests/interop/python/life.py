"""Runs a py-eureka-client step by step: one step per line of standard input, one line of output per step."""

import asyncio
import logging
import os
import sys

from py_eureka_client import eureka_client

logging.basicConfig(level=logging.INFO, stream=sys.stderr)


async def main(registry: str) -> None:
    errors = []
    client = await eureka_client.init_async(
        eureka_server=registry,
        app_name="python-orders",
        instance_id="python:1",
        instance_host="127.0.0.1",
        instance_ip="127.0.0.1",
        instance_port=9,
        # Heartbeats are sent by the steps below only, not by the timer.
        renewal_interval_in_secs=3600,
        duration_in_secs=7200,
        metadata={"colour": "blau & grün"},
        on_error=lambda kind, error: errors.append(f"{kind} {error}"),
    )
    steps = {
        "heartbeat": client.send_heartbeat,
        "out": lambda: client.status_update("OUT_OF_SERVICE"),
        "back": client.delete_status_override,
        "stop": client.stop,
    }
    print("started", flush=True)
    for line in sys.stdin:
        step = line.strip()
        if step == "view":
            await client._EurekaClient__fetch_delta()
            seen = [
                f"{instance.app} {instance.instanceId} {instance.status}"
                for application in client.applications.applications
                for instance in application.instances
            ]
            print(f"view {','.join(sorted(seen))}", flush=True)
        else:
            await steps[step]()
            print(f"{step} {errors}", flush=True)


asyncio.run(main(sys.argv[1]))
# The heartbeat thread is asleep and would delay a normal exit.
sys.stdout.flush()
os._exit(0)
