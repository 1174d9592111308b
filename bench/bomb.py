#!/usr/bin/env python3
"""Serves gzip bombs of 20 GB as registry lists, and prints the peak memory of a consumer that fetches them.

Usage: bench/bomb.py [CONSUMER]. Defaults to target/release/examples/consumer, which must be built before:

    cargo build --release --features client --example consumer

Needs Linux. Each bomb is one response of 20 GB after decompression and 20 to 60 MB before. The consumer runs for 15 s
for each of them, and asks again and again. The peak is VmHWM of /proc/PID/status.
"""
import http.server
import os
import struct
import subprocess
import sys
import threading
import time
import zlib

SIZE = 20 * 10**9
BLOCK = 16 * 2**20
SECONDS = 15
LIMIT_MB = 150
HEAD = b'{"applications":{"versions__delta":"1","apps__hashcode":"UP_1_","application":[{"name":"A","instance":['


def instance(number):
    return (
        '{"instanceId":"%d","hostName":"host-%d","app":"A","ipAddr":"10.0.0.1","status":"UP","port":{"$":8080,'
        '"@enabled":"true"},"dataCenterInfo":{"@class":"x","name":"MyOwn"},"metadata":{"n":"%d"}},'
        % (number, number, number)
    ).encode()


def filled(piece):
    return piece * (BLOCK // len(piece))


def distinct():
    text = bytearray()
    number = 0
    while len(text) < BLOCK:
        text += instance(number)
        number += 1
    return bytes(text)


# The content that is repeated, in place of instances.
BOMBS = {
    "empty instances": lambda: filled(b"{},"),
    "equal instances": lambda: filled(instance(1)),
    "distinct instances": distinct,
    "one string": lambda: b'{"hostName":"' + filled(b"a"),
    "one metadata object": lambda: b'{"metadata":{' + b"".join(b'"%d":"",' % n for n in range(BLOCK // 10)),
    "applications": lambda: b"]}," + filled(b'{"name":"B"},'),
    "white space": lambda: filled(b" "),
    "not JSON": lambda: filled(b"0"),
}


def deflated(text):
    """Returns a block that can be followed by any other one."""
    compress = zlib.compressobj(9, zlib.DEFLATED, -15)
    return compress.compress(text) + compress.flush(zlib.Z_FULL_FLUSH)


class Bomb(http.server.BaseHTTPRequestHandler):
    head = block = b""
    repeats = sent = 0
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            self.wfile.write(struct.pack("<BBBBIBB", 0x1F, 0x8B, 8, 0, 0, 0, 255) + Bomb.head)
            for _ in range(Bomb.repeats):
                self.wfile.write(Bomb.block)
                Bomb.sent += len(Bomb.block)
        except OSError:
            # The consumer has closed the connection.
            pass

    def log_message(self, *_):
        pass


def peak_mb(pid):
    with open(f"/proc/{pid}/status") as status:
        line = next(line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def main():
    consumer = sys.argv[1] if len(sys.argv) > 1 else "target/release/examples/consumer"
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Bomb)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/eureka/"
    environment = dict(
        os.environ, EUREKA_CLIENT_SERVICEURL_DEFAULTZONE=url, EUREKA_CLIENT_REGISTRYFETCHINTERVALSECONDS="1", RUST_LOG="warn"
    )
    worst = 0
    for name, content in BOMBS.items():
        text = content()
        Bomb.head, Bomb.block = deflated(HEAD), deflated(text)
        Bomb.repeats, Bomb.sent = SIZE // len(text), 0
        arguments = [consumer, "orders", "/", "1"]
        process = subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        time.sleep(SECONDS)
        peak = peak_mb(process.pid)
        process.terminate()
        _, log = process.communicate(timeout=10)
        worst = max(worst, peak)
        line = next((line for line in log.splitlines() if "refresh" in line), "no log line").strip()
        print(f"{name:<22}{peak:6.0f} MB, {Bomb.sent / 1e6:.1f} MB were sent: {line[:160]}", flush=True)
    print(f"worst: {worst:.0f} MB, limit {LIMIT_MB} MB")
    sys.exit(worst >= LIMIT_MB)


if __name__ == "__main__":
    main()
