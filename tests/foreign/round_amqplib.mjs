// One round with amqplib's promises: node round_amqplib.mjs URL

import assert from "node:assert/strict";
import { once } from "node:events";
import { createRequire } from "node:module";

// It is installed where AMQP_NODE_MODULES says.
const require = createRequire(`${process.env.AMQP_NODE_MODULES ?? "."}/`);
const amqp = require("amqplib");

const late = setTimeout(() => {
  console.error("not done after 50 s");
  process.exit(1);
}, 50_000);

const connection = await amqp.connect(process.argv[2]);
const channel = await connection.createConfirmChannel();
const name = `amqplib-${process.pid}-${Date.now()}`;
await channel.assertExchange(name, "fanout", { durable: false, autoDelete: true });
const { queue } = await channel.assertQueue("", { exclusive: true });
await channel.bindQueue(queue, name, "");
await channel.prefetch(5);

// Publish with confirms, and one message that nobody takes.
const headers = { text: "grüße", number: 5, yes: true, list: [1, "two"], table: { inner: null } };
const options = {
  headers,
  mandatory: true,
  contentType: "text/plain",
  correlationId: "correlation",
  messageId: "message",
  persistent: true,
  priority: 3,
  timestamp: 1234567890,
  type: "kind",
  appId: "app",
};
for (let number = 0; number < 10; number++) {
  channel.publish(name, "", Buffer.from(`message ${number}`), options);
}
await channel.waitForConfirms();
const returned = once(channel, "return");
channel.publish("", `missing-${name}`, Buffer.from("lost"), { mandatory: true });
const [lost] = await returned;
assert.equal(lost.fields.replyCode, 312);
assert.equal(lost.content.toString(), "lost");
await channel.waitForConfirms();

// Consume, put one back, acknowledge all.
const taken = [];
let again = 0;
await new Promise((resolve, reject) => {
  channel
    .consume(
      queue,
      (message) => {
        try {
          const { fields, properties, content } = message;
          assert.deepEqual(properties.headers, headers);
          for (const property of ["contentType", "correlationId", "messageId", "priority", "timestamp", "type", "appId"]) {
            assert.equal(properties[property], options[property], property);
          }
          assert.equal(properties.deliveryMode, 2);
          if (fields.redelivered) {
            again += 1;
          } else if (content.toString() === "message 4") {
            channel.nack(message, false, true);
            return;
          }
          taken.push(content.toString());
          channel.ack(message);
          if (taken.length === 10) resolve();
        } catch (error) {
          reject(error);
        }
      },
      { consumerTag: "taker" },
    )
    .catch(reject);
});
assert.equal(again, 1);
assert.deepEqual(taken.slice().sort(), [...Array(10).keys()].map((number) => `message ${number}`));
await channel.cancel("taker");
assert.equal((await channel.checkQueue(queue)).messageCount, 0);
assert.equal(await channel.get(queue), false);

// A mistake costs the channel, and no more.
const wrong = await connection.createChannel();
const failed = once(wrong, "error");
await assert.rejects(wrong.checkQueue(`missing-${name}`), /404 \(NOT-FOUND\).*no queue 'missing-/);
assert.equal((await failed)[0].code, 404);
assert.equal((await channel.deleteQueue(queue)).messageCount, 0);
await channel.close();
await connection.close();
clearTimeout(late);
