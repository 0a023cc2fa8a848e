"""One round with pika's blocking connection: python round_pika.py URL"""

import decimal
import sys
import uuid

import pika
from pika.exceptions import ChannelClosedByBroker, UnroutableError

connection = pika.BlockingConnection(pika.URLParameters(sys.argv[1]))
channel = connection.channel()
exchange = f"pika-{uuid.uuid4()}"
channel.exchange_declare(exchange, exchange_type="topic", auto_delete=True)
queue = channel.queue_declare("", exclusive=True).method.queue
assert queue.startswith("amq.gen-"), queue
channel.queue_bind(queue, exchange, routing_key="news.#")
channel.basic_qos(prefetch_count=2)

# Publish, each one confirmed, with every property that there is.
channel.confirm_delivery()
headers = {
    "text": "grüße",
    "number": -5,
    "large": 1 << 40,
    "yes": True,
    "fraction": decimal.Decimal("0.5"),
    "nothing": None,
    "bytes": b"\x00\xff",
    "list": [1, "two", {"three": 3}],
    "table": {"inner": {"innermost": "x"}},
}
properties = pika.BasicProperties(
    content_type="text/plain",
    content_encoding="utf-8",
    headers=headers,
    delivery_mode=2,
    priority=4,
    correlation_id="correlation",
    reply_to="reply",
    expiration="60000",
    message_id="message",
    timestamp=1234567890,
    type="kind",
    user_id="guest",
    app_id="app",
)
bodies = [b"one", b"", b"x" * 500_000]
for body in bodies:
    channel.basic_publish(exchange, "news.de", body, properties, mandatory=True)
try:
    channel.basic_publish(exchange, "weather", b"lost", mandatory=True)
    raise AssertionError("an unroutable message was not returned")
except UnroutableError as error:
    assert error.messages[0].method.reply_code == 312
    assert error.messages[0].body == b"lost"

# Consume, acknowledge, cancel.
taken = []
for method, got, body in channel.consume(queue, inactivity_timeout=60):
    assert method is not None, "no delivery"
    assert (method.exchange, method.routing_key) == (exchange, "news.de"), method
    assert not method.redelivered
    for name in vars(properties):
        assert getattr(got, name) == getattr(properties, name), (name, getattr(got, name))
    taken.append(body)
    if len(taken) == 1:
        channel.basic_ack(method.delivery_tag)
    if len(taken) == 3:
        channel.basic_ack(method.delivery_tag, multiple=True)
        break
    if len(taken) == 2:
        channel.basic_nack(method.delivery_tag, requeue=True)
        again, _, body = next(channel.consume(queue, inactivity_timeout=60))
        # It comes again, behind what was on the way already.
        while not again.redelivered:
            taken.append(body)
            again, _, body = next(channel.consume(queue, inactivity_timeout=60))
        assert body == bodies[1]
        if len(taken) == 3:
            channel.basic_ack(again.delivery_tag, multiple=True)
            break
assert taken == bodies, [len(body) for body in taken]
assert channel.cancel() == 0
assert channel.queue_declare(queue, passive=True).method.message_count == 0
assert channel.basic_get(queue) == (None, None, None)

# A mistake costs the channel, and no more.
try:
    channel.queue_declare(f"missing-{exchange}", passive=True)
    raise AssertionError("there is no such queue")
except ChannelClosedByBroker as error:
    assert error.reply_code == 404, error
    assert error.reply_text.startswith("NOT_FOUND - no queue 'missing-"), error
channel = connection.channel()
channel.queue_delete(queue)
connection.close()
