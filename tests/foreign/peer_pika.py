"""One round of pika's blocking connection with a peer: python peer_pika.py URL

The peer has published "from the peer" to the queue "news", and prints what arrives in its inbox."""

import sys

import pika
from pika.exceptions import ChannelClosedByBroker

connection = pika.BlockingConnection(pika.URLParameters(sys.argv[1]))
channel = connection.channel()
channel.queue_declare("news", passive=True)
channel.confirm_delivery()
properties = pika.BasicProperties(
    type="greeting", user_id="guest", delivery_mode=2, headers={"number": 5}
)
for number in range(100):
    body = f"from pika {number}".encode()
    channel.basic_publish("", "peer.inbox", body, properties, mandatory=True)

for method, got, body in channel.consume("news", inactivity_timeout=60):
    assert method is not None, "no delivery"
    assert body == b"from the peer", body
    channel.basic_ack(method.delivery_tag)
    break
channel.cancel()

# The inbox is the peer's own.
other = connection.channel()
try:
    other.basic_get("peer.inbox")
    raise AssertionError("a client has taken from the inbox")
except ChannelClosedByBroker as error:
    assert error.reply_code == 405, error
connection.close()
