"""snakeMQ: messages of 5 bytes over one link between two processes.

    snake.py packets|messages COUNT PORT

Prints how many a second arrived: packets from the connect until the disconnect, messages from the first one
until the last.
"""
import logging
import os
import sys
import time

from snakemq import link, message, messaging, packeter

LAYER, COUNT, PORT = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
BODY = b"hello"
logging.getLogger("snakemq").setLevel(logging.CRITICAL)


def report(start):
    print(COUNT / (time.perf_counter() - start), flush=True)


def receive_packets():
    base = link.Link()
    base.add_listener(("127.0.0.1", PORT))
    layer = packeter.Packeter(base)
    state = {"count": 0}

    def connected(connection):
        state["start"] = time.perf_counter()

    def received(connection, packet):
        state["count"] += 1

    def disconnected(connection):
        assert state["count"] == COUNT, state
        report(state["start"])
        base.stop()

    layer.on_connect.add(connected)
    layer.on_packet_recv.add(received)
    layer.on_disconnect.add(disconnected)
    base.loop()
    base.cleanup()


def send_packets():
    base = link.Link()
    base.add_connector(("127.0.0.1", PORT))
    layer = packeter.Packeter(base)
    state = {"count": 0}

    def connected(connection):
        for _ in range(COUNT):
            layer.send_packet(connection, BODY)

    def sent(connection, packet):
        state["count"] += 1
        if state["count"] == COUNT:
            base.stop()

    layer.on_connect.add(connected)
    layer.on_packet_sent.add(sent)
    base.loop()
    base.cleanup()


def receive_messages():
    base = link.Link()
    base.add_listener(("127.0.0.1", PORT))
    layer = messaging.Messaging("receiver", "", packeter.Packeter(base))
    state = {"count": 0}

    def received(connection, identity, received_message):
        if not state["count"]:
            state["start"] = time.perf_counter()
        state["count"] += 1
        if state["count"] == COUNT:
            report(state["start"])
            base.stop()

    layer.on_message_recv.add(received)
    base.loop()
    base.cleanup()


def send_messages():
    base = link.Link()
    base.add_connector(("127.0.0.1", PORT))
    layer = messaging.Messaging("sender", "", packeter.Packeter(base))
    for _ in range(COUNT):
        layer.send_message("receiver", message.Message(BODY, ttl=60))
    layer.on_disconnect.add(lambda *_: base.stop())
    base.loop()
    base.cleanup()


child = os.fork()
if child:
    {"packets": receive_packets, "messages": receive_messages}[LAYER]()
    os.waitpid(child, 0)
else:
    time.sleep(0.3)
    {"packets": send_packets, "messages": send_messages}[LAYER]()
