#!/usr/bin/env python3
"""Latency of replication batches of 250 tasks, of target/release/tower-eureka or of the binary in the argument.

One connection loads 10,000 instances in batches of registrations. Meanwhile and afterwards, another connection sends batches
of heartbeats, of registrations and of mixed tasks, and each response is timed. Needs Python 3 and Linux.
"""

import http.client
import json
import multiprocessing
import os
import random
import socket
import subprocess
import sys
import time

INSTANCES, BATCH, ROUNDS = 10_000, 250, 200


def instance(number, version):
    app, host = f"APP{number % 100:03}", f"host-{number:05}.prod.example.com"
    return {
        "instanceId": f"{host}:{app.lower()}:8080", "hostName": host, "app": app, "ipAddr": "10.0.0.1", "status": "UP",
        "overriddenStatus": "UNKNOWN", "port": {"$": 8080, "@enabled": "true"}, "securePort": {"$": 443, "@enabled": "false"},
        "countryId": 1, "dataCenterInfo": {"@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo", "name": "MyOwn"},
        "leaseInfo": {"renewalIntervalInSecs": 30, "durationInSecs": 90},
        "metadata": {f"key-{i}": "x" * 40 for i in range(8)}, "vipAddress": app.lower(), "secureVipAddress": app.lower(),
        "homePageUrl": f"http://{host}:8080/", "statusPageUrl": f"http://{host}:8080/info",
        "healthCheckUrl": f"http://{host}:8080/health", "lastDirtyTimestamp": str(version), "actionType": "ADDED",
    }


def task(action, number, version):
    whole = instance(number, version)
    line = {"appName": whole["app"], "id": whole["instanceId"], "lastDirtyTimestamp": version, "status": "UP", "action": action}
    if action == "Register":
        line["instanceInfo"] = whole
    if action == "StatusUpdate":
        line["status"] = random.choice(["UP", "OUT_OF_SERVICE"])
    return line


def body(tasks):
    return json.dumps({"replicationList": tasks})


class Peer:
    def __init__(self, port):
        self.connection, self.times = http.client.HTTPConnection("127.0.0.1", port), []

    def send(self, batch):
        began = time.perf_counter()
        self.connection.request("POST", "/eureka/peerreplication/batch/", batch, {"Content-Type": "application/json"})
        response = self.connection.getresponse()
        whole = response.read()
        self.times.append((time.perf_counter() - began) * 1000)
        assert response.status == 200 and len(json.loads(whole)["responseList"]) == BATCH, response.status


def report(what, times, cpu=None):
    times = sorted(times)
    p50, p99 = (times[int(len(times) * share)] for share in (0.5, 0.99))
    cpu = f", CPU of the server {cpu * 1000 / len(times):.2f} ms each" if cpu else ""
    print(f"{what}: {len(times)} batches, p50 {p50:.1f} ms, p99 {p99:.1f} ms, slowest {times[-1]:.1f} ms{cpu}")


def cpu_seconds(pid):
    """Returns the user and system time of a process."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(port, queue):
    """Registers all instances and then newer versions of them, so that the load lasts."""
    versions = range(100, 104)
    batches = [body([task("Register", n, v) for n in range(at, at + BATCH)]) for v in versions for at in range(0, INSTANCES, BATCH)]
    peer = Peer(port)
    queue.put("ready")
    queue.get()
    for batch in batches:
        peer.send(batch)
    queue.put(peer.times)


def main():
    binary = sys.argv[1] if len(sys.argv) > 1 else "target/release/tower-eureka"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [binary, "serve", "--listen", f"127.0.0.1:{port}"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "RUST_LOG": "warn"})
    try:
        server.stdout.readline()
        ours, theirs = multiprocessing.Pipe()

        class Channel:
            put, get = theirs.send, theirs.recv

        # A separate process, since two Python threads would block each other.
        loader = multiprocessing.Process(target=load, args=(port, Channel))
        loader.start()
        sample = lambda actions, version: body([task(random.choice(actions), n, version) for n in random.sample(range(INSTANCES), BATCH)])
        meanwhile = [sample(["Heartbeat"], 100) for _ in range(20)]
        asker = Peer(port)
        ours.recv()
        ours.send("go")
        while not ours.poll():
            asker.send(random.choice(meanwhile))
        report("registrations of 1 KB, while they are loaded", ours.recv())
        loader.join()
        report("heartbeats, meanwhile", asker.times)
        for actions in ["Heartbeat"], ["Register"], ["Heartbeat", "Register", "StatusUpdate", "DeleteStatusOverride"]:
            batches = [sample(actions, 104) for _ in range(ROUNDS)]
            asker.times, before = [], cpu_seconds(server.pid)
            for batch in batches:
                asker.send(batch)
            report(f"{', '.join(actions)}, with {INSTANCES} instances", asker.times, cpu_seconds(server.pid) - before)
    finally:
        server.terminate()
        server.wait()


main()
