"""One round with aio-pika's robust connection: python round_aio_pika.py URL"""

import asyncio
import sys
import uuid

import aio_pika
from aio_pika.exceptions import ChannelNotFoundEntity, DeliveryError


async def main() -> None:
    connection = await aio_pika.connect_robust(sys.argv[1])
    async with connection:
        channel = await connection.channel(on_return_raises=True)
        await channel.set_qos(prefetch_count=10)
        name = f"aio-pika-{uuid.uuid4()}"
        exchange = await channel.declare_exchange(
            name, aio_pika.ExchangeType.HEADERS, auto_delete=True
        )
        queue = await channel.declare_queue(
            name, durable=True, arguments={"x-max-priority": 5}
        )
        await queue.bind(exchange, arguments={"x-match": "all", "colour": "red"})

        # Many confirms at once, and one message that nobody takes.
        message = lambda number: aio_pika.Message(
            f"message {number}".encode(),
            headers={"colour": "red", "number": number, "list": [1, 2]},
            content_type="text/plain",
            correlation_id="correlation",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            priority=number % 3,
        )
        confirms = await asyncio.gather(
            *(exchange.publish(message(number), "") for number in range(30))
        )
        assert all(confirm.name == "Basic.Ack" for confirm in confirms), confirms
        try:
            await exchange.publish(aio_pika.Message(b"lost"), "", mandatory=True)
            raise AssertionError("an unroutable message was not returned")
        except DeliveryError:
            pass

        # Those of a higher priority come first.
        taken = []
        async with queue.iterator(timeout=60) as messages:
            async for got in messages:
                assert got.headers["colour"] == "red" and got.headers["list"] == [1, 2]
                assert got.content_type == "text/plain"
                assert got.correlation_id == "correlation"
                assert not got.redelivered
                taken.append(int(got.headers["number"]))
                await got.ack()
                if len(taken) == 30:
                    break
        assert taken == sorted(range(30), key=lambda it: -(it % 3)), taken
        assert await queue.get(fail=False) is None

        # What is rejected is dead, and goes where the dead go.
        dead = await channel.declare_queue("", exclusive=True)
        living = await channel.declare_queue(
            "",
            exclusive=True,
            arguments={
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": dead.name,
            },
        )
        await channel.default_exchange.publish(aio_pika.Message(b"mortal"), living.name)
        mortal = await living.get(timeout=60)
        await mortal.reject(requeue=False)
        for _ in range(100):
            risen = await dead.get(fail=False)
            if risen:
                break
            await asyncio.sleep(0.02)
        assert risen.body == b"mortal"
        assert risen.headers["x-death"][0]["reason"] == "rejected", risen.headers
        await risen.ack()

        # A mistake costs the channel, and no more.
        wrong = await connection.channel()
        try:
            await wrong.get_queue(f"missing-{name}", ensure=True)
            raise AssertionError("there is no such queue")
        except ChannelNotFoundEntity as error:
            assert "NOT_FOUND - no queue 'missing-" in str(error), error
        deleted = await queue.delete(if_unused=False, if_empty=False)
        assert deleted.message_count == 0


asyncio.run(asyncio.wait_for(main(), 50))
