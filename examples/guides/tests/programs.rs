//! Programs as processes of their own, on the embedded broker and on RabbitMQ where both can.

mod process;
mod tokens;

use std::{
    io::Write as _,
    net::TcpStream,
    path::Path,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use amqp_tests::{
    Certificates, Clients, Embedded,
    harness::{self, Broker, Outcome, Scenario},
};
use amqp_tokio::{
    ConfirmChannel, Connection, connect,
    protocol::{basic, queue},
};
use tokio::runtime::Runtime;

use self::process::Program;

/// The time for what takes a moment on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A broker that a scenario can stop and start.
trait Restart {
    fn stop(&self) -> Outcome;
    fn start(&self) -> Outcome;
}

impl Restart for Embedded {
    fn stop(&self) -> Outcome {
        self.broker().stop();
        Ok(())
    }

    fn start(&self) -> Outcome {
        self.broker().start();
        Ok(())
    }
}

impl Restart for Broker {
    fn stop(&self) -> Outcome {
        Ok(self.node.stop()?)
    }

    fn start(&self) -> Outcome {
        Ok(self.node.restart()?)
    }
}

/// A scenario as a function of the address of its broker.
type Case = fn(&str) -> Outcome;

const CASES: [(&str, Case); 6] = [
    ("publisher", publishes),
    ("outcomes", says_what_became_of_each_line),
    ("retries", retries_jobs_and_keeps_dead_ones),
    ("rpc", calls),
    ("calls", tells_errors_of_calls_apart),
    ("service", serves_and_drains),
];

fn main() -> ExitCode {
    let mut scenarios = Vec::new();
    for (name, case) in CASES {
        scenarios.push(Scenario::local(format!("{name}::embedded"), move || {
            case(&Embedded::start()?.uri())
        }));
        scenarios.push(Scenario::shared(
            format!("{name}::rabbitmq"),
            move |broker| case(&broker.uri),
        ));
    }
    for (name, case) in [
        ("worker", worker as fn(&str, &dyn Restart) -> Outcome),
        ("forever", forever),
    ] {
        scenarios.push(Scenario::local(format!("{name}::embedded"), move || {
            let broker = Embedded::start()?;
            case(&broker.uri(), &broker)
        }));
        scenarios.push(Scenario::alone(
            format!("{name}::rabbitmq"),
            move |broker| case(&broker.uri, &broker),
        ));
    }
    scenarios.push(Scenario::local(
        "service_without_a_broker::embedded",
        a_service_without_a_broker_says_so,
    ));
    scenarios.push(Scenario::local("tls::embedded", || {
        let broker = Embedded::start_with_tls(|_| (), Clients::Certified)?;
        let certificates = broker.certificates().ok_or("no certificates")?;
        logs_in_with_a_certificate(certificates, broker.address().port())
    }));
    scenarios.push(Scenario::with_tls(
        "tls::rabbitmq",
        Clients::Certified,
        |broker| {
            let certificates = broker.node.certificates().ok_or("no certificates")?;
            let address = broker.node.tls_address().ok_or("no port for TLS")?;
            logs_in_with_a_certificate(certificates, address.port())
        },
    ));
    scenarios.push(
        Scenario::alone("oauth2::rabbitmq", tokens::renews_tokens)
            .config("auth_backends.1 = internal")
            .config("auth_backends.2 = rabbit_auth_backend_oauth2"),
    );
    harness::run(scenarios)
}

/// A connection to the broker of a program, on a runtime of its own.
struct Client {
    runtime: Runtime,
    connection: Connection,
    channel: ConfirmChannel,
}

impl Client {
    fn connect(url: &str) -> Result<Self, harness::Failure> {
        let runtime = Runtime::new()?;
        let (connection, channel) = runtime.block_on(async {
            let connection = connect(url).await?;
            let channel = connection.open_channel().await?.confirm_select().await?;
            Ok::<_, harness::Failure>((connection, channel))
        })?;
        Ok(Self {
            runtime,
            connection,
            channel,
        })
    }

    /// Publishes a message, and returns when a queue has it.
    fn publish(&self, exchange: &str, key: &str, body: &'static str) -> Outcome {
        let publish = basic::Publish::default()
            .exchange(exchange)
            .routing_key(key)
            .mandatory(true);
        let persistent = basic::Properties::default().persistent();
        let published = async {
            let confirm = self.channel.publish(&publish, &persistent, body).await?;
            Ok(confirm.await?)
        };
        self.runtime.block_on(published)
    }

    /// Takes the next message of a queue, when there is one.
    fn take(&self, queue: &str) -> Result<String, harness::Failure> {
        let taking = async {
            let consume = basic::Consume::default().queue(queue);
            let mut consumer = self.channel.consume(consume).await?;
            let delivery = consumer.next().await.ok_or("the consumer has ended")??;
            let body = delivery.body.to_string();
            delivery.ack()?;
            consumer.cancel().await?;
            Ok(body)
        };
        let limited = self.connection.within(PATIENCE, taking);
        self.runtime.block_on(limited).ok_or("no message")?
    }

    /// The number of ready messages of a queue.
    fn count(&self, queue: &str) -> Result<u32, harness::Failure> {
        let looked = queue::Declare::default().queue(queue).passive(true);
        let declared = self.runtime.block_on(self.channel.call(looked))?;
        Ok(declared.message_count)
    }
}

fn publishes(url: &str) -> Outcome {
    let mut publisher = Program::start(env!("CARGO_BIN_EXE_publisher"), &[("AMQP_URL", url)], &[])?;
    publisher.expect("1000 messages are in the queue")?;
    publisher.expect("as expected, the message was returned: 312")?;
    publisher.succeeds()
}

fn says_what_became_of_each_line(url: &str) -> Outcome {
    let mut outcomes = Program::start(env!("CARGO_BIN_EXE_outcomes"), &[("AMQP_URL", url)], &[])?;
    outcomes.write("one\n")?;
    outcomes.expect("one: Arrived")?;
    let client = Client::connect(url)?;
    assert_eq!(client.take("lines")?, "one");
    let delete = queue::Delete::default().queue("lines");
    client.runtime.block_on(client.channel.call(delete))?;
    outcomes.write("two\n")?;
    outcomes.expect("two: Unroutable")?;
    outcomes.fails("1 lines have not arrived")
}

fn retries_jobs_and_keeps_dead_ones(url: &str) -> Outcome {
    let retries = Program::start(env!("CARGO_BIN_EXE_retries"), &[("AMQP_URL", url)], &[])?;
    let client = Client::connect(url)?;
    // Its queue may not be declared yet.
    until_it_succeeds(|| client.publish("", "jobs", "2"))?;
    client.publish("", "jobs", "two")?;
    assert_eq!(client.take("jobs.dead")?, "two");
    retries.expect("done at attempt 2")?;
    assert_eq!(client.count("jobs")?, 0);
    assert_eq!(client.count("jobs.retry.5000")?, 0);
    Ok(())
}

fn calls(url: &str) -> Outcome {
    let mut rpc = Program::start(env!("CARGO_BIN_EXE_rpc"), &[("AMQP_URL", url)], &[])?;
    rpc.expect("12: 144")?;
    rpc.expect("error 400: \"a dozen\" is no number")?;
    rpc.succeeds()
}

fn tells_errors_of_calls_apart(url: &str) -> Outcome {
    let variables = [("AMQP_URL", url)];
    let calls = env!("CARGO_BIN_EXE_calls");
    let mut alone = Program::start(calls, &variables, &["3"])?;
    alone.expect("3: not run, there is no server: 312")?;
    alone.fails("1 calls without a result")?;

    // A server that does not answer: the queue without a consumer.
    let client = Client::connect(url)?;
    let squares = queue::Declare::default().queue("squares").exclusive(true);
    client.runtime.block_on(client.channel.call(squares))?;
    let mut late = Program::start(calls, &variables, &["4"])?;
    late.expect("4: in doubt, no reply came in time")?;
    late.fails("1 calls without a result")
}

fn serves_and_drains(url: &str) -> Outcome {
    let variables = [("AMQP_URL", url), ("HTTP_ADDRESS", "127.0.0.1:0")];
    let mut service = Program::start(env!("CARGO_BIN_EXE_service"), &variables, &[])?;
    let line = service.expect("listening on ")?;
    let address = line.rsplit(' ').next().unwrap_or_default();
    let health = process::request(address, "GET /health", "")?;
    assert!(health.starts_with("HTTP/1.1 200 "), "{health}");
    answers(address, "POST /orders", "apples", "202")?;
    service.expect("order: apples")?;
    // An order is in doubt if its confirm was late, and was placed again then.
    let answer = process::request(address, "GET /orders", "")?;
    let count = answer.rsplit("\r\n").next().unwrap_or_default();
    assert!(count.parse::<u32>()? >= 1, "{answer}");

    let client = Client::connect(url)?;
    let delete = queue::Delete::default().queue("orders");
    client.runtime.block_on(client.channel.call(delete))?;
    service.fails("no more orders: the server cancelled the consumer")?;

    let mut service = Program::start(env!("CARGO_BIN_EXE_service"), &variables, &[])?;
    let line = service.expect("listening on ")?;
    let address = line.rsplit(' ').next().unwrap_or_default();
    // A client that never ends its request.
    let mut held = TcpStream::connect(address)?;
    held.write_all(b"POST /orders HTTP/1.1\r\nHost: here\r\nContent-Length: 9\r\n\r\nhalf")?;
    answers(address, "GET /health", "", "200")?;
    service.terminate()?;
    service.expect("drained: ")?;
    service.succeeds()
}

/// Requests are answered with 503 while the broker is stopped, and placed when it is back.
fn a_service_without_a_broker_says_so() -> Outcome {
    let broker = Embedded::start()?;
    let url = broker.uri();
    let variables = [("AMQP_URL", url.as_str()), ("HTTP_ADDRESS", "127.0.0.1:0")];
    let service = Program::start(env!("CARGO_BIN_EXE_service"), &variables, &[])?;
    let line = service.expect("listening on ")?;
    let address = line.rsplit(' ').next().unwrap_or_default();
    broker.broker().stop();
    answers(address, "GET /health", "", "503")?;
    let refused = process::request(address, "POST /orders", "pears")?;
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    broker.broker().start();
    answers(address, "GET /health", "", "200")?;
    answers(address, "POST /orders", "plums", "202")?;
    // The order that was refused is not published afterwards.
    let order = service.expect("order: ")?;
    assert_eq!(order, "order: plums");
    Ok(())
}

/// Sends a request until the answer has that status.
fn answers(address: &str, line: &str, body: &str, status: &str) -> Outcome {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = process::request(address, line, body)?;
        if answer.starts_with(&format!("HTTP/1.1 {status} ")) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("{line}: {answer}").into());
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Calls a function until it succeeds.
fn until_it_succeeds(mut call: impl FnMut() -> Outcome) -> Outcome {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match call() {
            Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(50)),
            ended => return ended,
        }
    }
}

fn worker(url: &str, broker: &dyn Restart) -> Outcome {
    let worker = Program::start(env!("CARGO_BIN_EXE_worker"), &[("AMQP_URL", url)], &[])?;
    let publish =
        |body| until_it_succeeds(|| Client::connect(url)?.publish("events", "order.new", body));
    publish("apples")?;
    worker.expect("order.new: apples")?;
    broker.stop()?;
    broker.start()?;
    worker.expect_error("recovered in ")?;
    publish("pears")?;
    worker.expect("order.new: pears")?;
    Ok(())
}

fn forever(url: &str, broker: &dyn Restart) -> Outcome {
    let mut forever = Program::start(env!("CARGO_BIN_EXE_forever"), &[("AMQP_URL", url)], &[])?;
    forever.expect("4 bytes")?;
    broker.stop()?;
    forever.skip();
    broker.start()?;
    forever.expect("4 bytes")?;

    // Without its queue it ends, with an error.
    let client = Client::connect(url)?;
    let delete = queue::Delete::default().queue("forever");
    client.runtime.block_on(client.channel.call(delete))?;
    forever.fails("ConsumerCancelled")
}

fn logs_in_with_a_certificate(certificates: &Certificates, port: u16) -> Outcome {
    let port = port.to_string();
    let run = |name: &str| {
        let variables = [
            ("AMQP_HOST", "localhost"),
            ("AMQP_PORT", &port),
            ("CA_FILE", &certificates.path("ca.pem")),
            ("CERT_FILE", &certificates.path(&format!("{name}.pem"))),
            ("KEY_FILE", &certificates.path(&format!("{name}.key"))),
        ];
        assert!(Path::new(variables[2].1).exists());
        Program::start(env!("CARGO_BIN_EXE_tls"), &variables, &[])
    };
    let mut known = run("client")?;
    known.expect("logged in")?;
    known.succeeds()?;
    run("other")?.expect_error("the certificate of this program")?;
    Ok(())
}
