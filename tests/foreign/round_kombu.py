"""One round with py-amqp, and one with kombu on top of it: python round_kombu.py URL"""

import socket
import sys
import uuid

import amqp
import kombu
from amqp.exceptions import NotFound, PreconditionFailed
from kombu.utils.url import parse_url

URL = sys.argv[1]


def round_py_amqp() -> None:
    url = parse_url(URL)
    connection = amqp.Connection(
        f"{url['hostname']}:{url['port']}",
        userid=url["userid"],
        password=url["password"],
        virtual_host=url["virtual_host"] or "/",
        confirm_publish=True,
    )
    connection.connect()
    channel = connection.channel()
    queue, messages, consumers = channel.queue_declare("", exclusive=True, auto_delete=False)
    assert (messages, consumers) == (0, 0)
    headers = {"text": "x", "number": 1 << 33, "list": [True, None], "table": {"a": 1.5}}
    for number in range(5):
        message = amqp.Message(
            f"message {number}",
            content_type="text/plain",
            application_headers=headers,
            delivery_mode=1,
        )
        channel.basic_publish(message, routing_key=queue)

    taken = []

    def take(message: amqp.Message) -> None:
        assert message.headers == headers, message.headers
        assert message.properties["content_type"] == "text/plain"
        taken.append(message.body)
        channel.basic_ack(message.delivery_tag)

    tag = channel.basic_consume(queue, callback=take)
    while len(taken) < 5:
        connection.drain_events(timeout=60)
    assert taken == [f"message {number}" for number in range(5)], taken
    channel.basic_cancel(tag)
    assert channel.basic_get(queue) is None

    # Mistakes cost the channel, and no more.
    try:
        channel.queue_declare(f"missing-{uuid.uuid4()}", passive=True)
        raise AssertionError("there is no such queue")
    except NotFound as error:
        assert error.code == 404 and "no queue 'missing-" in error.reply_text, error
    channel = connection.channel()
    try:
        channel.basic_ack(99)
        connection.drain_events(timeout=60)
        raise AssertionError("nothing was delivered")
    except PreconditionFailed as error:
        assert "unknown delivery tag 99" in error.reply_text, error
    connection.close()


def round_kombu() -> None:
    with kombu.Connection(URL, transport_options={"confirm_publish": True}) as connection:
        name = f"kombu-{uuid.uuid4()}"
        exchange = kombu.Exchange(name, type="direct", durable=False, auto_delete=True)
        queue = kombu.Queue(name, exchange, routing_key="key", durable=False, auto_delete=True)
        with connection.Producer(serializer="json") as producer:
            for number in range(3):
                producer.publish(
                    {"number": number},
                    exchange=exchange,
                    routing_key="key",
                    headers={"number": number},
                    declare=[queue],
                )
        taken = []

        def take(body: dict, message: kombu.Message) -> None:
            assert message.headers["number"] == body["number"]
            taken.append(body["number"])
            message.ack()

        with connection.Consumer(queue, callbacks=[take], prefetch_count=1):
            while len(taken) < 3:
                connection.drain_events(timeout=60)
        assert taken == [0, 1, 2], taken

        # The queue went with its last consumer.
        try:
            connection.default_channel.queue_declare(name, passive=True)
            raise AssertionError("the queue is still there")
        except NotFound:
            pass

        # kombu's own simple queue, which it keeps tasks in.
        simple = connection.SimpleQueue(f"simple-{uuid.uuid4()}")
        simple.put({"task": 1}, compression="zlib")
        message = simple.get(timeout=60)
        assert message.payload == {"task": 1}
        message.ack()
        assert simple.qsize() == 0
        simple.consumer.cancel()
        simple.queue.delete()


socket.setdefaulttimeout(120)
round_py_amqp()
round_kombu()
