//! A broker that outlives its process, in a file.

mod file;
mod last_clone;

use std::{
    env,
    error::Error,
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use amqp_embedded::{
    StoreError,
    broker::{Config, Limits, Permissions, Policy, User, VhostLimits},
};
use amqp_tokio::{
    ConfirmChannel, Connection, LocalBroker, Requeue,
    protocol::{basic, exchange, queue, tx},
    wire::{FieldTable, FieldValue},
};

use self::file::{File, open};

type Outcome = Result<(), Box<dyn Error>>;

/// The path for the child process of a test.
const CHILD: &str = "AMQP_STORE_OF_CHILD";

async fn connect(broker: &LocalBroker) -> Result<(Connection, ConfirmChannel), amqp_tokio::Error> {
    let connection = broker.connect(amqp_tokio::Config::default()).await?;
    let channel = connection.open_channel().await?.confirm_select().await?;
    Ok((connection, channel))
}

async fn declare_tasks(channel: &ConfirmChannel) -> Outcome {
    let declare = queue::Declare::default().queue("tasks");
    channel.call(declare).await?;
    Ok(())
}

fn persistent() -> basic::Properties {
    basic::Properties {
        delivery_mode: Some(2),
        ..basic::Properties::default()
    }
}

async fn publish(channel: &ConfirmChannel, queue: &str, body: impl Into<Vec<u8>>) -> Outcome {
    let publish = basic::Publish::default().routing_key(queue);
    let confirm = channel
        .publish(&publish, &persistent(), body.into())
        .await?;
    Ok(confirm.await?)
}

/// Takes all messages: their bodies, with `!` for redelivered ones.
async fn drain(channel: &ConfirmChannel, queue: &str) -> Result<Vec<String>, Box<dyn Error>> {
    let mut bodies = Vec::new();
    let get = basic::Get::default().queue(queue).no_ack(true);
    while let Some(message) = channel.get(get.clone()).await? {
        let mark = if message.method.redelivered { "!" } else { "" };
        bodies.push(format!("{}{mark}", str::from_utf8(&message.body.to_vec())?));
    }
    Ok(bodies)
}

#[tokio::test]
async fn a_broker_finds_its_durable_state_again() -> Outcome {
    let file = File::new()?;
    let broker = file.open()?;
    let (connection, channel) = connect(&broker).await?;
    for name in ["tasks", "deleted"] {
        channel.call(queue::Declare::default().queue(name)).await?;
    }
    for name in ["events", "gone"] {
        let declare = exchange::Declare::default().exchange(name).kind("topic");
        channel.call(declare.durable(true)).await?;
        let bind = queue::Bind::default().queue("tasks").exchange(name);
        channel.call(bind.routing_key("a.#")).await?;
    }
    channel
        .call(exchange::Delete::default().exchange("gone"))
        .await?;
    let bind = queue::Bind::default().queue("deleted");
    channel
        .call(bind.exchange("events").routing_key("b"))
        .await?;
    publish(&channel, "deleted", "lost").await?;
    channel
        .call(queue::Delete::default().queue("deleted"))
        .await?;
    for body in ["acked", "unacked", "ready"] {
        publish(&channel, "tasks", body).await?;
    }
    let get = basic::Get::default().queue("tasks");
    let first = channel.get(get.clone()).await?.ok_or("no message")?;
    first.ack()?;
    let _second = channel.get(get).await?.ok_or("no message")?;
    broker.stored().await?;
    let before = broker.inspect();
    drop(channel);
    connection.close().await?;
    end(broker).await;

    let broker = file.open()?;
    let (_connection, channel) = connect(&broker).await?;
    let after = broker.inspect();
    assert_eq!(after.vhosts[0].exchanges, before.vhosts[0].exchanges);
    assert_eq!(after.vhosts[0].bindings, before.vhosts[0].bindings);
    assert_eq!(after.vhosts[0].queues.len(), 1);
    assert_eq!(drain(&channel, "tasks").await?, ["unacked!", "ready"]);
    Ok(())
}

/// Numbers from a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = self.0.wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}

#[tokio::test]
async fn the_file_has_the_state_of_the_broker() -> Outcome {
    let mut dice = Dice(1);
    for _ in 0..2 {
        let file = File::new()?;
        let mut broker = file.open()?;
        for _ in 0..3 {
            let (connection, channel) = connect(&broker).await?;
            for _ in 0..60 {
                step(&mut dice, &channel).await?;
            }
            broker.stop();
            let before = broker.with(|broker| broker.snapshot());
            drop((connection, channel));
            end(broker).await;
            broker = file.open()?;
            assert_eq!(broker.with(|broker| broker.snapshot()), before);
        }
    }
    Ok(())
}

/// One operation of a client.
async fn step(dice: &mut Dice, channel: &ConfirmChannel) -> Outcome {
    let name = ["classic", "quorum"][dice.roll(2)];
    let source = ["events", "logs"][dice.roll(2)];
    let mut declare = queue::Declare::default().queue(name);
    declare.arguments = declare.arguments.with("x-queue-type", name);
    channel.call(declare).await?;
    let declare = exchange::Declare::default().exchange(source);
    let declare = declare.kind("topic").durable(true);
    channel.call(declare).await?;
    match dice.roll(14) {
        0..=2 => {
            let bind = queue::Bind::default().queue(name).exchange(source);
            channel.call(bind.routing_key("a.#")).await?;
        }
        3 => {
            let unbind = queue::Unbind::default().queue(name).exchange(source);
            channel.call(unbind.routing_key("a.#")).await?;
        }
        4 => {
            let bind = exchange::Bind::default().source(source);
            channel.call(bind.destination("amq.topic")).await?;
        }
        5 if dice.roll(3) == 0 => {
            let delete = queue::Delete::default().queue(name);
            channel.call(delete).await?;
        }
        6 if dice.roll(3) == 0 => {
            let delete = exchange::Delete::default().exchange(source);
            channel.call(delete).await?;
        }
        7 if dice.roll(3) == 0 => {
            let purge = queue::Purge::default().queue(name);
            channel.call(purge).await?;
        }
        8 | 9 => {
            let get = basic::Get::default().queue(name);
            if let Some(message) = channel.get(get).await? {
                match dice.roll(4) {
                    0 => message.ack()?,
                    1 => message.reject(Requeue::Yes)?,
                    2 => message.reject(Requeue::No)?,
                    _ => {}
                }
            }
        }
        _ => {
            let publish = basic::Publish::default().exchange(source);
            let publish = publish.routing_key("a.b");
            let body = dice.roll(1000).to_string();
            let confirm = channel.publish(&publish, &persistent(), body).await?;
            confirm.await?;
        }
    }
    Ok(())
}

/// Drops a broker after its connections.
async fn end(broker: LocalBroker) {
    broker
        .until(|broker| broker.inspect().connections.is_empty())
        .await;
    // The tasks of the connections hold it until they have ended.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    drop(broker);
}

#[tokio::test]
async fn a_copy_of_the_file_has_all_that_was_confirmed() -> Outcome {
    let (file, copy) = (File::new()?, File::new()?);
    let broker = file.open()?;
    let (_connection, channel) = connect(&broker).await?;
    declare_tasks(&channel).await?;
    publish(&channel, "tasks", "confirmed").await?;
    let committing = _connection.open_channel().await?.tx_select().await?;
    let publish = basic::Publish::default().routing_key("tasks");
    committing
        .publish(&publish, &persistent(), "committed")
        .await?;
    committing.call(tx::Commit).await?;
    fs::copy(&file.path, &copy.path)?;

    let broker = copy.open()?;
    let (_connection, channel) = connect(&broker).await?;
    // As after a crash.
    assert_eq!(
        drain(&channel, "tasks").await?,
        ["confirmed!", "committed!"]
    );
    Ok(())
}

#[test]
fn a_killed_process_loses_nothing_that_was_confirmed() -> Outcome {
    let file = File::new()?;
    let mut confirmed = 0;
    for round in 1..=3 {
        let mut child = Command::new(env::current_exe()?)
            .args(["--exact", "the_process_that_is_killed", "--nocapture"])
            .env(CHILD, &file.path)
            .stdout(Stdio::piped())
            .spawn()?;
        let said = BufReader::new(child.stdout.take().ok_or("no output")?);
        for line in said.lines() {
            if let Some(number) = line?.strip_prefix("confirmed ") {
                confirmed = number.parse()?;
                if confirmed >= round * 50 {
                    break;
                }
            }
        }
        child.kill()?;
        child.wait()?;
        assert!(confirmed >= round * 50, "{confirmed}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build()?;
    runtime.block_on(async {
        let broker = file.open()?;
        let (_connection, channel) = connect(&broker).await?;
        let bodies = drain(&channel, "tasks").await?;
        for (number, body) in (1..).zip(&bodies) {
            assert_eq!(*body, format!("{number}!"));
        }
        assert!(bodies.len() >= confirmed, "{} of {confirmed}", bodies.len());
        Ok(())
    })
}

/// Publishes numbers until it is killed, from the first one that the queue does not have.
#[tokio::test]
async fn the_process_that_is_killed() -> Outcome {
    let Some(path) = env::var_os(CHILD) else {
        return Ok(());
    };
    let broker = open(Path::new(&path))?;
    let (_connection, channel) = connect(&broker).await?;
    let declare = queue::Declare::default().queue("tasks");
    let declared = channel.call(declare).await?;
    for number in declared.message_count + 1.. {
        publish(&channel, "tasks", number.to_string()).await?;
        println!("confirmed {number}");
    }
    Ok(())
}

/// Given a file that cannot grow, when it is full, then connections end instead of waiting for
/// confirms, and the broker stays stopped.
#[cfg(unix)]
#[test]
fn a_full_disk_stops_the_broker() -> Outcome {
    let file = File::new()?;
    // The limit of a file's size, in units of 512 bytes, whose excess is an error and no signal.
    let script = "trap '' XFSZ; ulimit -f 8192; exec \"$0\" \"$@\"";
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(env::current_exe()?)
        .args(["--exact", "the_process_with_a_full_disk", "--nocapture"])
        .env(CHILD, &file.path)
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("stopped by the store"), "{output:?}");
    assert!(output.status.success(), "{output:?}");
    let confirmed = said.lines().filter(|line| line.contains("confirmed"));
    let confirmed = confirmed.count();

    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build()?;
    runtime.block_on(async {
        let broker = file.open()?;
        let tasks = broker.with(|broker| broker.queue("/", "tasks"));
        let ready = tasks.map_or(0, |tasks| tasks.ready);
        assert!(ready >= confirmed, "{ready} of {confirmed}");
        Ok(())
    })
}

/// Publishes until the store fails.
#[tokio::test]
async fn the_process_with_a_full_disk() -> Outcome {
    let Some(path) = env::var_os(CHILD) else {
        return Ok(());
    };
    let broker = open(Path::new(&path))?;
    let (connection, channel) = connect(&broker).await?;
    declare_tasks(&channel).await?;
    for _ in 0..1000 {
        if publish(&channel, "tasks", vec![7; 100_000]).await.is_err() {
            let error = broker.stored().await.err().ok_or("no error")?;
            println!("stopped by the store: {error}");
            broker.start();
            assert!(broker.with(|broker| broker.is_stopped()));
            assert!(!connection.is_open());
            return Ok(());
        }
        println!("confirmed");
    }
    Err("it is never full".into())
}

#[tokio::test]
async fn a_file_belongs_to_one_broker() -> Outcome {
    let file = File::new()?;
    let broker = file.open()?;
    let error = file.open().err().ok_or("it is open twice")?;
    assert!(matches!(error, StoreError::AlreadyOpen(_)), "{error}");
    drop(broker);
    file.open()?;
    Ok(())
}

#[tokio::test]
async fn a_file_of_another_kind_is_refused() -> Outcome {
    let file = File::new()?;
    fs::write(&file.path, "no store, but a text. ".repeat(1000))?;
    let error = file.open().err().ok_or("it is a store")?;
    assert!(matches!(error, StoreError::File { .. }), "{error}");
    assert!(error.to_string().contains("broker"), "{error}");
    assert!(matches!(
        open(file.folder.path()),
        Err(StoreError::File { .. })
    ));
    Ok(())
}

#[tokio::test]
async fn a_corrupt_file_is_refused() -> Outcome {
    let file = File::new()?;
    let broker = file.open()?;
    let (connection, channel) = connect(&broker).await?;
    declare_tasks(&channel).await?;
    for _ in 0..20 {
        publish(&channel, "tasks", "x".repeat(5000)).await?;
    }
    connection.close().await?;
    end(broker).await;
    let whole = fs::read(&file.path)?;
    let mut refused = 0;
    for at in (0..whole.len()).step_by(whole.len() / 12) {
        let mut bytes = whole.clone();
        let end = (at + 64).min(bytes.len());
        bytes[at..end].fill(0xa5);
        fs::write(&file.path, &bytes)?;
        // Bytes of no use may be anything.
        refused += usize::from(file.open().is_err());
    }
    assert!(refused > 0);
    for len in [10, 5000, whole.len() / 2] {
        fs::write(&file.path, &whole[..len])?;
        assert!(file.open().is_err(), "{len}");
    }
    Ok(())
}

#[tokio::test]
async fn the_file_does_not_grow_with_what_passes() -> Outcome {
    let file = File::new()?;
    let broker = file.open()?;
    let (connection, channel) = connect(&broker).await?;
    declare_tasks(&channel).await?;
    for _ in 0..200 {
        publish(&channel, "tasks", vec![7; 200 << 10]).await?;
        drain_bytes(&channel).await?;
    }
    let size = fs::metadata(&file.path)?.len();
    assert!(size < 10 << 20, "{size}");

    for _ in 0..100 {
        publish(&channel, "tasks", vec![7; 200 << 10]).await?;
    }
    let most = fs::metadata(&file.path)?.len();
    assert!(most > 20 << 20, "{most}");
    drain_bytes(&channel).await?;
    connection.close().await?;
    end(broker).await;
    drop(file.open()?);
    let size = fs::metadata(&file.path)?.len();
    assert!(size < 4 << 20, "{size}");
    Ok(())
}

async fn drain_bytes(channel: &ConfirmChannel) -> Outcome {
    let purge = queue::Purge::default().queue("tasks");
    channel.call(purge).await?;
    Ok(())
}

#[tokio::test]
async fn publishers_wait_for_the_disk() -> Outcome {
    let file = File::new()?;
    let limits = Limits::default().journal(100_000);
    let config = Config::default().limits(limits);
    let broker = LocalBroker::open(&file.path, config)?;
    let (_connection, channel) = connect(&broker).await?;
    declare_tasks(&channel).await?;
    let publish = basic::Publish::default().routing_key("tasks");
    let mut confirms = Vec::new();
    for _ in 0..300 {
        let body = vec![7; 10_000];
        confirms.push(channel.publish(&publish, &persistent(), body).await?);
    }
    for confirm in confirms {
        confirm.await?;
    }
    let tasks = broker.with(|broker| broker.queue("/", "tasks"));
    assert_eq!(tasks.map(|tasks| tasks.ready), Some(300));
    Ok(())
}

/// Declares a stream with segments of about a thousand bytes, of which retention keeps a few.
async fn declare_stream(channel: &ConfirmChannel) -> Outcome {
    let arguments = FieldTable::new()
        .with("x-queue-type", "stream")
        .with("x-stream-max-segment-size-bytes", 1000)
        .with("x-max-length-bytes", 3000);
    let declare = queue::Declare::default().queue("log").durable(true);
    channel.call(declare.arguments(arguments)).await?;
    Ok(())
}

/// Reads a stream from the beginning: the offsets and bodies of its messages.
async fn read_stream(channel: &ConfirmChannel) -> Result<Vec<(i64, String)>, Box<dyn Error>> {
    channel
        .call(basic::Qos::default().prefetch_count(1000))
        .await?;
    let arguments = FieldTable::new().with("x-stream-offset", "first");
    let declared = queue::Declare::default().queue("log").passive(true);
    let count = channel.call(declared).await?.message_count;
    let consume = basic::Consume::default().queue("log").arguments(arguments);
    let mut consumer = channel.consume(consume).await?;
    let mut read = Vec::new();
    for _ in 0..count {
        let delivery = consumer.next().await.ok_or("no delivery")??;
        let headers = delivery.properties()?.headers.unwrap_or_default();
        let offset = headers.get("x-stream-offset").and_then(FieldValue::as_i64);
        let body = String::from_utf8(delivery.body.to_vec())?;
        read.push((offset.ok_or("no offset")?, body));
    }
    Ok(read)
}

#[tokio::test]
async fn a_stream_keeps_its_offsets_and_only_the_segments_that_remain() -> Outcome {
    let file = File::new()?;
    let mut number = 0;
    let mut before = Vec::new();
    for round in 0..3 {
        let broker = file.open()?;
        let (connection, channel) = connect(&broker).await?;
        declare_stream(&channel).await?;
        assert_eq!(read_stream(&channel).await?, before, "{round}");
        for _ in 0..100 {
            number += 1;
            publish(&channel, "log", format!("{number:0100}")).await?;
        }
        let (other, reading) = connect(&broker).await?;
        before = read_stream(&reading).await?;
        let last = before.last().ok_or("no messages")?;
        assert_eq!(last.1, format!("{number:0100}"));
        assert!(before.len() < 50, "{}", before.len());
        other.close().await?;
        connection.close().await?;
        drop((channel, reading));
        end(broker).await;
    }
    Ok(())
}

#[tokio::test]
async fn changes_of_an_operator_are_kept() -> Outcome {
    let file = File::new()?;
    let broker = file.open()?;
    broker.with(|broker| -> Outcome {
        let mut admin = broker.admin();
        for name in ["staging", "gone"] {
            admin.add_vhost(name)?;
            admin.set_policy(name, Policy::new("p", "")?.with("max-length", 1))?;
            admin.set_operator_policy(name, Policy::new("p", "")?.with("max-length", 7))?;
            admin.set_vhost_limits(name, VhostLimits::default().max_queues(5))?;
        }
        for name in ["anna", "bob"] {
            admin.add_user(User::new(name, "secret"))?;
            admin.set_permissions(name, "staging", Permissions::all())?;
            admin.set_permissions(name, "gone", Permissions::all())?;
        }
        Ok(admin.set_permissions("guest", "gone", Permissions::all())?)
    })?;
    let config = amqp_tokio::Config::default().virtual_host("gone");
    let connection = broker.connect(config).await?;
    let channel = connection.open_channel().await?;
    let declare = exchange::Declare::default().exchange("e").kind("fanout");
    channel.call(declare.durable(true)).await?;
    channel.call(queue::Declare::default().queue("q")).await?;
    let bind = queue::Bind::default().queue("q").exchange("amq.fanout");
    channel.call(bind).await?;
    broker.with(|broker| -> Outcome {
        let mut admin = broker.admin();
        admin.change_password("guest", "changed")?;
        admin.clear_policy("staging", "p")?;
        admin.delete_vhost("gone")?;
        Ok(admin.delete_user("bob")?)
    })?;
    broker.stored().await?;
    let users = broker.with(|broker| broker.list_users());
    let vhosts = broker.inspect().vhosts;
    end(broker).await;

    let broker = file.open()?;
    assert_eq!(broker.with(|broker| broker.list_users()), users);
    assert_eq!(broker.inspect().vhosts, vhosts);
    assert!(broker.connect(amqp_tokio::Config::default()).await.is_err());
    Ok(())
}
