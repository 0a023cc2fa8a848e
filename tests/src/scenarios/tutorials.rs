//! The tutorials that RabbitMQ has for every client, end to end, and RPC beyond them.

use std::{collections::BTreeMap, future::Future};

use amqp_tokio::{
    BaseChannel, Channel, Connection, Consumer, Error, ManualAck, Message, NoAck, Unconfirmed,
    core::protocol::{ReplyCode, basic, queue},
    wire::{FieldTable, ShortStr},
};

use super::{
    Case, cases,
    tools::{
        bind, consume, declare_exchange, open, open_confirming, own_queue, put, ready, text, to,
    },
};
use crate::{
    context::Ctx,
    harness::{Failure, Outcome},
};

pub(super) fn cases() -> Vec<Case> {
    cases![
        a_reply_finds_its_request,
        replies_are_routed_to_handlers,
        direct_replies_need_no_queue,
        hello_world,
        work_queues,
        publish_and_subscribe,
        routing,
        topics,
        remote_procedure_call,
        send_with_return,
        headers_exchange,
    ]
}

/// Tutorial 1: the simplest thing that does something.
async fn hello_world(cx: Ctx) -> Outcome {
    let hello = queue::Declare::default().queue("hello");
    {
        let connection = cx.connect().await?;
        let channel = connection.open_channel().await?;
        channel.call(hello.clone()).await?;
        let to_hello = basic::Publish::default().routing_key("hello");
        let properties = basic::Properties::default();
        channel
            .publish(&to_hello, &properties, "Hello World!")
            .await?;
        connection.close().await?; // accepted messages are sent first
    }
    let connection = cx.connect().await?;
    let channel = connection.open_channel().await?;
    channel.call(hello).await?;
    let mut consumer = channel.consume_no_ack(consume("hello")).await?;
    let message = cx.soon(consumer.next()).await?.ok_or("no message")??;
    assert_eq!(message.body, "Hello World!");
    Ok(connection.close().await?)
}

/// A worker: takes tasks until it has done so many.
async fn work(connection: Connection, count: usize) -> Result<Vec<String>, Failure> {
    let channel = connection.open_channel().await?;
    channel
        .call(basic::Qos::default().prefetch_count(1))
        .await?;
    let mut consumer = channel.consume(consume("task_queue")).await?;
    let mut done = Vec::new();
    while done.len() < count {
        let delivery = consumer.next().await.ok_or("no task")??;
        assert_eq!(delivery.properties()?.delivery_mode, Some(2));
        done.push(text(&delivery.body));
        delivery.ack()?;
    }
    consumer.cancel().await?;
    channel.close().await?;
    Ok(done)
}

/// Tutorial 2: tasks among workers, durable, persistent, one at a time for each; and a worker that
/// dies loses none.
async fn work_queues(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let declare = queue::Declare::default().queue("task_queue");
    channel.call(declare).await?;
    let persistent = basic::Properties::default().delivery_mode(2);
    let mut confirms = Vec::new();
    for number in 0..10 {
        let task = format!("task {number}{}", ".".repeat(number % 3));
        confirms.push(
            channel
                .publish(&to("", "task_queue"), &persistent, task)
                .await?,
        );
    }
    for confirm in confirms {
        confirm.await?;
    }

    // This one takes a task and dies.
    let dying = cx.connect().await?;
    let of_dying = dying.open_channel().await?;
    of_dying
        .call(basic::Qos::default().prefetch_count(1))
        .await?;
    let mut consumer = of_dying.consume(consume("task_queue")).await?;
    let lost = cx.soon(consumer.next()).await?.ok_or("no task")??;
    assert_eq!(text(&lost.body), "task 0");
    let mark = cx.mark(&dying).await?;
    dying.abort();
    cx.gone(&mark).await?;

    let workers = [5, 5].map(|count| {
        let cx = cx.clone();
        cx.clone()
            .spawn(async move { work(cx.connect().await?, count).await })
    });
    let mut done = Vec::new();
    for worker in workers {
        done.extend(cx.soon(worker.join()).await???);
    }
    done.sort_unstable();
    let tasks: Vec<String> = (0..10)
        .map(|number| format!("task {number}{}", ".".repeat(number % 3)))
        .collect();
    assert_eq!(done, tasks);
    assert_eq!(ready(&channel, "task_queue").await?, 0);
    Ok(connection.close().await?)
}

/// A queue of one's own, bound to an exchange with these keys, and a consumer of it.
async fn subscribe(
    channel: &BaseChannel,
    exchange: &str,
    keys: &[&str],
) -> Result<Consumer<NoAck>, Error> {
    let queue = own_queue(channel).await?;
    for key in keys {
        bind(channel, &queue, exchange, key).await?;
    }
    channel.consume_no_ack(consume(&queue)).await
}

/// The bodies of so many messages.
async fn read(
    cx: &Ctx,
    consumer: &mut Consumer<NoAck>,
    count: usize,
) -> Result<Vec<String>, Failure> {
    let mut bodies = Vec::new();
    for _ in 0..count {
        let message = cx.soon(consumer.next()).await?.ok_or("no message")??;
        bodies.push(text(&message.body));
    }
    Ok(bodies)
}

/// Tutorial 3: each consumer gets every message.
async fn publish_and_subscribe(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    declare_exchange(&channel, "logs", "fanout").await?;
    let (other, subscriber) = open(&cx).await?;
    let mut one = subscribe(&subscriber, "logs", &[""]).await?;
    let mut two = subscribe(&subscriber, "logs", &[""]).await?;
    for number in 0..3 {
        put(&channel, "logs", "", format!("log {number}")).await?;
    }
    for consumer in [&mut one, &mut two] {
        assert_eq!(read(&cx, consumer, 3).await?, ["log 0", "log 1", "log 2"]);
    }
    other.close().await?;
    Ok(connection.close().await?)
}

/// Tutorial 4: each consumer gets the messages of its bindings.
async fn routing(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    declare_exchange(&channel, "direct_logs", "direct").await?;
    let mut errors = subscribe(&channel, "direct_logs", &["error"]).await?;
    let mut all = subscribe(&channel, "direct_logs", &["info", "warning", "error"]).await?;
    for severity in ["info", "error", "warning"] {
        put(&channel, "direct_logs", severity, severity).await?;
    }
    assert_eq!(read(&cx, &mut errors, 1).await?, ["error"]);
    assert_eq!(read(&cx, &mut all, 3).await?, ["info", "error", "warning"]);
    // And nothing else.
    put(&channel, "direct_logs", "error", "last").await?;
    assert_eq!(read(&cx, &mut errors, 1).await?, ["last"]);
    Ok(connection.close().await?)
}

/// Tutorial 5: patterns of words.
async fn topics(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    declare_exchange(&channel, "topic_logs", "topic").await?;
    let mut all = subscribe(&channel, "topic_logs", &["#"]).await?;
    let mut kernel = subscribe(&channel, "topic_logs", &["kern.*"]).await?;
    let mut critical = subscribe(&channel, "topic_logs", &["*.critical"]).await?;
    let mut both = subscribe(&channel, "topic_logs", &["kern.*", "*.critical"]).await?;
    let keys = [
        "kern.critical",
        "kern.info",
        "cron.critical",
        "cron.info",
        "kern.a.critical",
        "",
    ];
    for key in keys {
        put(&channel, "topic_logs", key, key).await?;
    }
    assert_eq!(read(&cx, &mut all, 6).await?, keys);
    assert_eq!(
        read(&cx, &mut kernel, 2).await?,
        ["kern.critical", "kern.info"]
    );
    assert_eq!(
        read(&cx, &mut critical, 2).await?,
        ["kern.critical", "cron.critical"]
    );
    assert_eq!(
        read(&cx, &mut both, 3).await?,
        ["kern.critical", "kern.info", "cron.critical"]
    );
    put(&channel, "topic_logs", "kern.critical", "last").await?;
    for consumer in [&mut all, &mut kernel, &mut critical, &mut both] {
        assert_eq!(read(&cx, consumer, 1).await?, ["last"]);
    }
    Ok(connection.close().await?)
}

fn fib(n: u64) -> u64 {
    let (mut a, mut b) = (0, 1);
    for _ in 0..n {
        (a, b) = (b, a + b);
    }
    a
}

/// Passes each message to a handler, which is the style with callbacks, until it says that it is
/// enough.
async fn handle_each<F: Future<Output = Result<bool, Failure>>>(
    mut consumer: Consumer<ManualAck>,
    mut handler: impl FnMut(Message) -> F,
) -> Outcome {
    while let Some(delivery) = consumer.next().await {
        let delivery = delivery?;
        let goes_on = handler(delivery.message.clone()).await?;
        delivery.ack()?;
        if !goes_on {
            break;
        }
    }
    Ok(())
}

/// Answers so many requests for a number of Fibonacci's.
async fn serve(channel: Channel, count: usize) -> Outcome {
    let consumer = channel.consume(consume("rpc_queue")).await?;
    let mut served = 0;
    handle_each(consumer, |request| {
        served += 1;
        let channel = &channel;
        async move {
            let properties = request.properties()?;
            let reply_to = properties.reply_to.ok_or("no address to reply to")?;
            let correlation = properties
                .correlation_id
                .ok_or("nothing to tell the reply by")?;
            let number = text(&request.body).parse()?;
            let reply = basic::Properties::default().correlation_id(correlation);
            let to = basic::Publish::default().routing_key(reply_to);
            channel
                .publish(&to, &reply, fib(number).to_string())
                .await?;
            Ok(served < count)
        }
    })
    .await
}

/// Declares the queue of requests, and lets a server answer so many.
async fn start_server(
    cx: &Ctx,
    connection: &Connection,
    count: usize,
) -> Result<crate::task::Task<Outcome>, Failure> {
    let channel = connection.open_channel().await?;
    channel
        .call(queue::Declare::default().queue("rpc_queue"))
        .await?;
    channel
        .call(basic::Qos::default().prefetch_count(1))
        .await?;
    Ok(cx.spawn(serve(channel, count)))
}

/// Asks for a number.
async fn ask(channel: &Channel, number: u64, reply_to: &str) -> Result<(), Error> {
    let properties = basic::Properties::default()
        .reply_to(reply_to)
        .correlation_id(format!("request {number}"));
    let request = basic::Publish::default().routing_key("rpc_queue");
    channel
        .publish(&request, &properties, number.to_string())
        .await
}

/// Tutorial 6: fib(30), with reply_to and correlation_id.
async fn remote_procedure_call(cx: Ctx) -> Outcome {
    let connection = cx.connect().await?;
    let server = start_server(&cx, &connection, 1).await?;
    let client = cx.connect().await?;
    let channel = client.open_channel().await?;
    let replies = own_queue(&channel).await?;
    let mut consumer = channel.consume_no_ack(consume(&replies)).await?;
    ask(&channel, 30, &replies).await?;
    let reply = cx.soon(consumer.next()).await?.ok_or("no reply")??;
    let correlation = reply.properties()?.correlation_id;
    assert_eq!(correlation.as_deref(), Some("request 30"));
    assert_eq!(text(&reply.body), "832040");
    cx.soon(server.join()).await???;
    client.close().await?;
    Ok(connection.close().await?)
}

/// Given RPC server and client on one connection, when the client publishes with reply_to and
/// correlation_id, then the server sees both and the client receives the reply with the same
/// correlation_id on its reply routing key: here as an iterator.
async fn a_reply_finds_its_request(cx: Ctx) -> Outcome {
    let connection = cx.connect().await?;
    let server = start_server(&cx, &connection, 5).await?;
    let channel = connection.open_channel().await?;
    let replies = own_queue(&channel).await?;
    let mut consumer = channel.consume(consume(&replies)).await?;
    for number in 1..=5 {
        ask(&channel, number, &replies).await?;
        let reply = cx.soon(consumer.next()).await?.ok_or("no reply")??;
        let correlation = reply.properties()?.correlation_id;
        assert_eq!(correlation.as_deref(), Some(&*format!("request {number}")));
        assert_eq!(reply.method.routing_key, replies);
        assert_eq!(text(&reply.body), fib(number).to_string());
        reply.ack()?;
    }
    cx.soon(server.join()).await???;
    Ok(connection.close().await?)
}

/// The same with handlers for the replies, and all requests under way at once.
async fn replies_are_routed_to_handlers(cx: Ctx) -> Outcome {
    const REQUESTS: u64 = 20;
    let connection = cx.connect().await?;
    let server = start_server(&cx, &connection, REQUESTS as usize).await?;
    let channel = connection.open_channel().await?;
    let replies = own_queue(&channel).await?;
    let mut waiting: BTreeMap<ShortStr, u64> = BTreeMap::new();
    for number in 0..REQUESTS {
        ask(&channel, number, &replies).await?;
        waiting.insert(format!("request {number}").try_into()?, number);
    }
    let consumer = channel.consume(consume(&replies)).await?;
    cx.soon(handle_each(consumer, |reply| {
        let properties = reply.properties();
        let request = properties
            .ok()
            .and_then(|it| waiting.remove(&it.correlation_id?));
        let left = waiting.len();
        async move {
            let request = request.ok_or("a reply to nothing")?;
            assert_eq!(text(&reply.body), fib(request).to_string());
            Ok(left > 0)
        }
    }))
    .await??;
    cx.soon(server.join()).await???;
    Ok(connection.close().await?)
}

/// The same without a queue for the replies.
async fn direct_replies_need_no_queue(cx: Ctx) -> Outcome {
    const REPLY_TO: &str = "amq.rabbitmq.reply-to";
    let connection = cx.connect().await?;
    let server = start_server(&cx, &connection, 1).await?;
    let channel = connection.open_channel().await?;
    let mut consumer = channel.consume_no_ack(consume(REPLY_TO)).await?;
    ask(&channel, 10, REPLY_TO).await?;
    let reply = cx.soon(consumer.next()).await?.ok_or("no reply")??;
    assert_eq!(text(&reply.body), "55");
    assert_eq!(
        reply.properties()?.correlation_id.as_deref(),
        Some("request 10")
    );
    cx.soon(server.join()).await???;
    Ok(connection.close().await?)
}

/// A mandatory message without a consumer's queue is returned to its sender, one with such a queue
/// is not.
async fn send_with_return(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let queue = own_queue(&channel).await?;
    put(&channel, "", &queue, "taken").await?;
    let error = put(&channel, "", "nobody", "not taken").await;
    let error = error
        .expect_err("nobody takes it")
        .downcast::<Unconfirmed>()?;
    let Unconfirmed::Returned(message) = *error else {
        return Err(error);
    };
    assert_eq!(
        (message.code, text(&message.body)),
        (ReplyCode::NO_ROUTE, "not taken".into())
    );
    assert_eq!(ready(&channel, &queue).await?, 1);
    Ok(connection.close().await?)
}

/// A headers exchange, with x-match any and all.
async fn headers_exchange(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    declare_exchange(&channel, "by headers", "headers").await?;
    let mut consumers = Vec::new();
    for matching in ["any", "all"] {
        let queue = own_queue(&channel).await?;
        let arguments = FieldTable::new()
            .with("x-match", matching)
            .with("format", "pdf")
            .with("pages", 2);
        let bind = queue::Bind::default()
            .queue(&queue)
            .exchange("by headers")
            .arguments(arguments);
        channel.call(bind).await?;
        consumers.push(channel.consume_no_ack(consume(&queue)).await?);
    }
    let [any, all] = &mut consumers[..] else {
        return Err("there are two".into());
    };
    let send = async |format: &str, pages: i32| -> Outcome {
        let headers = FieldTable::new()
            .with("format", format)
            .with("pages", pages);
        let properties = basic::Properties::default().headers(headers);
        let body = format!("{format} {pages}");
        let confirm = channel
            .publish(&to("by headers", ""), &properties, body)
            .await?;
        Ok(confirm.await?)
    };
    send("pdf", 3).await?;
    send("text", 2).await?;
    send("text", 3).await.expect_err("nobody asked for that");
    send("pdf", 2).await?;
    assert_eq!(read(&cx, any, 3).await?, ["pdf 3", "text 2", "pdf 2"]);
    assert_eq!(read(&cx, all, 1).await?, ["pdf 2"]);
    Ok(connection.close().await?)
}
