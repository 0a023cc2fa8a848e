#!/usr/bin/env python3
"""Records the captures in this directory: what pika and RabbitMQ say to each other, for each of the programs below.

    pip install pika
    tests/captures/record.py [PROGRAM...]        from the root of the workspace; all programs unless told otherwise

The node and the recording proxy are examples of the crate amqp-tests. Each program below is one connection, and one pair of files.
"""
import contextlib
import datetime
import decimal
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import time

import pika
import pika.data

HERE = pathlib.Path(__file__).parent
FRAME_MAX = 4096  # the least that AMQP allows: short messages already need several frames
BODY_MAX = FRAME_MAX - 8


class Raw(bytes):
    """A field value as it stands on the wire, type and all: for the types that pika decodes but never sends."""

    def __new__(cls, kind, data):
        return super().__new__(cls, kind.encode() + data)


def encode_value(pieces, value, pika_encodes=pika.data.encode_value):
    if not isinstance(value, Raw):
        return pika_encodes(pieces, value)
    pieces.append(bytes(value))
    return len(value)


pika.data.encode_value = encode_value


class Repeated(dict):
    """A table in which each name comes twice."""

    def items(self):
        return [item for item in super().items() for _ in range(2)]


EVERY_TYPE = {
    "bool": True,
    "not": False,
    "i8": Raw("b", struct.pack(">b", -128)),
    "u8": Raw("B", struct.pack(">B", 255)),
    "i16": Raw("s", struct.pack(">h", -32768)),
    "u16": Raw("u", struct.pack(">H", 65535)),
    "i32": -2147483648,
    "u32": Raw("i", struct.pack(">I", 4294967295)),
    "i64": -9223372036854775808,
    "i64 too": Raw("L", struct.pack(">q", 9223372036854775807)),
    "f32": Raw("f", struct.pack(">f", 1.5)),
    "f64": Raw("d", struct.pack(">d", -0.1)),
    "decimal": decimal.Decimal("3.14"),
    "negative decimal": decimal.Decimal("-27.5"),
    "text": "gr\u00fc\u00dfe, \u4f60\u597d",
    "no text": "",
    "not text": Raw("S", struct.pack(">I", 2) + b"\xff\xfe"),
    "bytes": b"\x00\x01\xff",
    "time": datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.timezone.utc),
    "void": None,
    "array": [1, "two", None, [3.0 > 2, []], {"four": 4}],
    "no array": [],
    "table": {"inner": {"innermost": {"depth": 3}}, "empty": {}},
    "repeated": Repeated({"name": 1}),
    "": "a name of no length",
    "n" * 255: "the longest name",
}

EVERY_PROPERTY = pika.BasicProperties(
    content_type="application/octet-stream",
    content_encoding="identity",
    headers=EVERY_TYPE,
    delivery_mode=2,
    priority=9,
    correlation_id="correlation",
    reply_to="reply",
    expiration="60000",
    message_id="message",
    timestamp=1709209800,
    type="kind",
    user_id="guest",
    app_id="record.py",
    cluster_id="cluster",
)


def topology(connection, _ctl):
    """Every exchange and queue method: all types, flags, arguments, passive, without wait."""
    channel = connection.channel()
    for kind in ("direct", "fanout", "topic", "headers"):
        channel.exchange_declare(f"x.{kind}", kind, durable=kind == "topic")
    channel.exchange_declare("x.inner", "fanout", internal=True, auto_delete=True, arguments={"alternate-exchange": "x.fanout"})
    channel.exchange_declare("x.direct", passive=True)
    channel.exchange_bind("x.inner", "x.topic", "a.#", arguments={"why": "because"})
    channel.exchange_unbind("x.inner", "x.topic", "a.#", arguments={"why": "because"})
    channel.queue_declare("q.plain")
    arguments = {"x-message-ttl": 60000, "x-max-length": 10, "x-dead-letter-exchange": "x.fanout", "x-queue-mode": "lazy"}
    channel.queue_declare("q.rich", durable=True, arguments=arguments)
    channel.queue_declare("q.own", exclusive=True, auto_delete=True)
    channel.queue_declare("q.plain", passive=True)
    named = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(named, "x.headers", arguments={"x-match": "all", "colour": "red", "size": 3})
    channel.queue_bind("q.plain", "x.topic", "a.*.c")
    channel.queue_unbind("q.plain", "x.topic", "a.*.c")
    channel.queue_bind("q.rich", "x.direct", "key")
    channel.basic_publish("x.direct", "key", b"one")
    channel.basic_publish("x.direct", "key", b"two")
    channel.queue_purge("q.rich")
    # Without a callback, pika's lower layer asks for no answer.
    quiet = channel._impl
    quiet.exchange_declare("x.quiet", "direct")
    quiet.queue_declare("q.quiet")
    quiet.exchange_bind("x.quiet", "x.direct", "k")
    quiet.exchange_unbind("x.quiet", "x.direct", "k")
    quiet.queue_bind("q.quiet", "x.quiet", "k")
    quiet.queue_purge("q.quiet")
    quiet.queue_delete("q.quiet")
    quiet.exchange_delete("x.quiet")
    channel.queue_delete("q.rich", if_unused=True, if_empty=True)
    channel.queue_delete("q.plain")
    channel.exchange_delete("x.headers", if_unused=False)
    for kind in ("direct", "fanout", "topic"):
        channel.exchange_delete(f"x.{kind}", if_unused=True)
    channel.close()


def publishing(connection, _ctl):
    """Bodies of all sizes, every property, every field type; returns; confirms: single, multiple, negative."""
    channel = connection.channel()
    channel.queue_declare("q", exclusive=True)
    sizes = (0, 1, BODY_MAX - 1, BODY_MAX, BODY_MAX + 1, 2 * BODY_MAX, 2 * BODY_MAX + 1)
    for size in sizes:
        channel.basic_publish("", "q", bytes(n % 251 for n in range(size)))
    channel.basic_publish("", "q", b"everything", EVERY_PROPERTY)
    channel.basic_publish("", "q", b"zero", pika.BasicProperties(headers={}, priority=0, correlation_id="", timestamp=0))
    for _ in sizes:
        assert channel.basic_get("q", auto_ack=True)[0]
    assert channel.basic_get("q", auto_ack=True)[1].cluster_id == "cluster"
    assert channel.basic_get("q", auto_ack=True)[1].priority == 0

    confirming = connection.channel()
    confirming.confirm_delivery()
    confirming.basic_publish("", "q", b"confirmed", mandatory=True)
    for body in (b"", b"returned", bytes(BODY_MAX + 1)):
        try:
            confirming.basic_publish("", "nowhere", body, EVERY_PROPERTY, mandatory=True)
        except pika.exceptions.UnroutableError as error:
            assert error.messages[0].body == body
    confirming.queue_declare("full", exclusive=True, arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    confirming.basic_publish("", "full", b"fits")
    try:
        confirming.basic_publish("", "full", b"does not fit")
        raise AssertionError("no nack")
    except pika.exceptions.NackError:
        pass

    # Many at once, so that RabbitMQ confirms several with one ack.
    many = connection.channel()
    confirmed = set()

    def on_confirm(frame):
        tag = frame.method.delivery_tag
        confirmed.update(range(1, tag + 1) if frame.method.multiple else [tag])

    many._impl.confirm_delivery(on_confirm, lambda _: None)
    for number in range(20):
        many._impl.basic_publish("", "q", b"%d" % number)
    while len(confirmed) < 20:
        connection.process_data_events(1)
    many._impl.confirm_delivery(on_confirm)  # again, and without an answer


def consuming(connection, _ctl):
    """Consume, get, every way to settle, redelivery, cancel by either side."""
    channel = connection.channel()
    channel.queue_declare("q", exclusive=True)
    for number in range(12):
        channel.basic_publish("", "q", b"%d" % number)
    channel.basic_publish("", "q", b"x" * (BODY_MAX + 1), EVERY_PROPERTY)
    channel.basic_publish("", "q", b"")
    channel.basic_qos(prefetch_count=20)
    channel.basic_qos(prefetch_count=100, global_qos=True)
    got = []

    def wait_for(count):
        while len(got) < count:
            connection.process_data_events(1)

    def on_message(_channel, method, properties, body):
        got.append((method.delivery_tag, method.redelivered, body))

    channel.basic_consume("q", on_message, consumer_tag="first", arguments={"x-priority": 5})
    wait_for(14)
    tags = [tag for tag, _, _ in got]
    channel.basic_ack(tags[0])
    channel.basic_ack(tags[3], multiple=True)
    channel.basic_nack(tags[4], requeue=True)
    wait_for(15)
    channel.basic_nack(tags[6], multiple=True, requeue=False)
    channel.basic_reject(tags[7], requeue=False)
    channel.basic_reject(tags[8], requeue=True)
    wait_for(16)
    channel.basic_recover(requeue=True)
    wait_for(16 + 7)
    assert all(redelivered for _, redelivered, _ in got[14:])
    channel.basic_ack(0, multiple=True)
    channel.basic_cancel("first")

    assert channel.basic_get("q") == (None, None, None)
    channel.basic_publish("", "q", b"to be got")
    channel.basic_publish("", "q", b"y" * (2 * BODY_MAX))
    channel.basic_ack(channel.basic_get("q")[0].delivery_tag)
    channel.basic_get("q", auto_ack=True)

    del got[:]
    channel.queue_declare("doomed")
    channel.basic_consume("doomed", on_message, auto_ack=True, exclusive=True, consumer_tag="second")
    channel.basic_publish("", "doomed", b"last")
    wait_for(1)
    connection.channel().queue_delete("doomed")
    while channel.consumer_tags:
        connection.process_data_events(1)

    # Without an answer, in either case.
    channel._impl.basic_consume("q", lambda *_: None, consumer_tag="third")
    channel._impl.basic_cancel("third")
    channel._impl._send_method(pika.spec.Basic.RecoverAsync(requeue=True))
    assert channel.flow(True)
    channel.close(200, "enough")


def transactions(connection, _ctl):
    """Commit and rollback of publishes and acks."""
    channel = connection.channel()
    channel.tx_select()
    channel.queue_declare("q", exclusive=True)
    channel.basic_publish("", "q", b"kept")
    channel.tx_commit()
    channel.basic_publish("", "q", b"lost")
    channel.tx_rollback()
    tag = channel.basic_get("q")[0].delivery_tag
    channel.basic_ack(tag)
    channel.tx_rollback()
    channel.basic_ack(tag)
    channel.tx_commit()
    assert channel.queue_declare("q", passive=True).method.message_count == 0


def channel_errors(connection, _ctl):
    """Channels that RabbitMQ closes, for each of several reasons; the same number is opened again."""

    def fails(code, use):
        channel = connection.channel(7)
        try:
            use(channel)
            while channel.is_open:
                connection.process_data_events(1)
            channel.basic_publish("", "", b"")
        except (pika.exceptions.ChannelClosedByBroker, pika.exceptions.ChannelWrongStateError) as error:
            assert getattr(error, "reply_code", code) == code, error
        assert channel.is_closed

    fails(404, lambda channel: channel.queue_declare("missing", passive=True))
    fails(404, lambda channel: channel.basic_publish("missing", "key", b"nobody takes this"))
    fails(403, lambda channel: channel.queue_declare("amq.reserved"))
    fails(406, lambda channel: (channel.queue_declare("q"), channel.queue_declare("q", durable=True)))
    fails(406, lambda channel: channel.basic_ack(42))
    fails(406, lambda channel: channel.basic_publish("", "q", b"late", pika.BasicProperties(expiration="soon")))
    connection.channel(8).queue_delete("q")


def connection_error(connection, _ctl):
    """RabbitMQ closes the connection: 540, for what it does not implement."""
    channel = connection.channel()
    try:
        channel.basic_qos(prefetch_size=1)
        raise AssertionError("no error")
    except pika.exceptions.ConnectionClosedByBroker as error:
        assert error.reply_code == 540, error


def forced_close(connection, ctl):
    """RabbitMQ closes the connection: 320, because its operator says so."""
    connection.channel()
    ctl("close_all_connections", "time to go")
    try:
        while True:
            connection.process_data_events(1)
    except pika.exceptions.ConnectionClosedByBroker as error:
        assert error.reply_code == 320, error


def blocked(connection, ctl):
    """A memory alarm comes and goes, between heartbeats; the credentials are renewed."""
    told = []
    connection.add_on_connection_blocked_callback(lambda *_: told.append("blocked"))
    connection.add_on_connection_unblocked_callback(lambda *_: told.append("unblocked"))
    channel = connection.channel()
    connection.update_secret("guest", "it was time")
    connection.sleep(1.5)
    ctl("set_vm_memory_high_watermark", "absolute", "1")
    channel.basic_publish("", "nowhere", b"too much")
    while told != ["blocked"]:
        connection.process_data_events(1)
    connection.sleep(1.5)
    ctl("set_vm_memory_high_watermark", "0.4")
    while told != ["blocked", "unblocked"]:
        connection.process_data_events(1)


def refused_login(_connection, _ctl):
    """The password is wrong: RabbitMQ closes with 403 in the middle of the handshake."""


def refused_vhost(_connection, _ctl):
    """The virtual host does not exist: RabbitMQ closes with 530 instead of open-ok."""


PROGRAMS = {
    topology: {},
    publishing: {},
    consuming: {},
    transactions: {},
    channel_errors: {},
    connection_error: {},
    forced_close: {},
    blocked: {"heartbeat": 1},
    refused_login: {"credentials": pika.PlainCredentials("guest", "wrong"), "fails": pika.exceptions.ProbableAuthenticationError},
    refused_vhost: {"virtual_host": "missing", "fails": pika.exceptions.ProbableAccessDeniedError},
}


def example(name, *arguments):
    """Starts an example of amqp-tests with pipes to and from it."""
    command = ["cargo", "run", "--quiet", "-p", "amqp-tests", "--example", name, "--", *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def record(program, port, ctl, fails=None, heartbeat=0, **parameters):
    parameters = pika.ConnectionParameters("127.0.0.1", port, frame_max=FRAME_MAX, heartbeat=heartbeat, **parameters)
    try:
        connection = pika.BlockingConnection(parameters)
    except pika.exceptions.AMQPConnectionError as error:
        if not fails or not isinstance(error, fails):
            raise
        return
    program(connection, ctl)
    if connection.is_open:
        connection.close(200, "done")


def main():
    chosen = [program for program in PROGRAMS if not sys.argv[1:] or program.__name__ in sys.argv[1:]]
    node = example("node")
    environment = dict(line.strip().split("=", 1) for line in iter(node.stdout.readline, "\n"))
    address = environment["AMQP_URI"].split("@")[1].split("/")[0]

    def ctl(*arguments):
        rabbitmqctl = "/usr/lib/rabbitmq/bin/rabbitmqctl"
        subprocess.run([rabbitmqctl, "--silent", *arguments], env={**os.environ, **environment}, check=True)

    ctl("set_cluster_name", "recorded")  # RabbitMQ tells it to clients; the default is the machine's name
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        proxy = example("record", "--listen", "0", "--to", address, "--out", directory)
        stack.callback(proxy.kill)
        port = int(proxy.stdout.readline().rsplit(":", 1)[1])
        for number, program in enumerate(chosen, 1):
            record(program, port, ctl, **PROGRAMS[program])
            time.sleep(0.5)  # the proxy sees the end of the connection
            for way in ("c2s", "s2c"):
                data = pathlib.Path(directory, f"{number}.{way}").read_bytes()
                path = HERE / f"{program.__name__}.{way}"
                path.write_bytes(data)
                print(f"{path.name}: {len(data)} bytes")
    node.stdin.close()
    node.wait()


main()
