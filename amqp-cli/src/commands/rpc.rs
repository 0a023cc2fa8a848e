//! `amqp rpc`.

use std::{
    collections::VecDeque,
    ffi::OsString,
    future::{poll_fn, ready},
    io::Write as _,
    process::Stdio,
    task::Poll,
    time::Duration,
};

use amqp_tokio::{
    Connection, Error, Message,
    protocol::{basic, basic::Properties, queue},
    publishing::OutgoingMessage,
    rpc::{Client, ClientOptions, HandlerError, Reply, RpcError, Server},
};
use clap::{Args, Subcommand};
use tokio::task::JoinHandle;

use super::consume::run_command;
use crate::{
    connection::{ConnectionArgs, Recovery, abort_if_lost, close, note_losses},
    duration,
    entity::exists,
    failure::{Code, Failure, Outcome},
    message::{
        Format,
        input::{self, Record},
        output::write_delivered,
        properties::PropertyArgs,
    },
    note,
    signals::Stop,
    terminal::Output,
};

/// The code of an error of a command that could not be run.
const NOT_RUN: i32 = 500;

/// Calls a procedure over the broker, or serves one.
#[derive(Args, Clone, Debug)]
pub(crate) struct RpcArgs {
    #[command(subcommand)]
    side: Side,
}

#[derive(Clone, Debug, Subcommand)]
enum Side {
    Call(Box<CallArgs>),
    Serve(Box<ServeArgs>),
}

/// Publishes requests, and prints the replies in the order of the requests.
#[derive(Args, Clone, Debug)]
#[command(after_help = CALL_EXAMPLES)]
struct CallArgs {
    /// The exchange. Default: the one that routes to the queue of the name of the routing key.
    #[arg(short, long, default_value = "", hide_default_value = true)]
    exchange: String,
    /// The routing key: with the default exchange, the queue of the server.
    #[arg(short, long, value_name = "KEY")]
    routing_key: String,
    /// The request, in place of the standard input.
    #[arg(short, long, allow_hyphen_values = true, conflicts_with_all = ["line_buffered", "null"])]
    body: Option<OsString>,
    /// Takes each line as a request.
    #[arg(short, long)]
    line_buffered: bool,
    /// Takes each text that ends with a NUL as a request.
    #[arg(short = '0', long, conflicts_with = "line_buffered")]
    null: bool,
    /// The time for a reply.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration::parse)]
    timeout: Duration,
    /// The most requests that wait for their replies.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    window: u16,
    /// The form of the output. Default: raw for one request, otherwise as that of the input.
    #[arg(long, value_enum)]
    format: Option<Format>,
    #[command(flatten)]
    properties: PropertyArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

const CALL_EXAMPLES: &str = "Examples:
  amqp rpc call -r squares -b 12
  seq 100 | amqp rpc call -r squares -l";

/// Serves requests: runs a command for each, and replies with its standard output.
///
/// A command that fails makes an error of the call, with its exit code.
#[derive(Args, Clone, Debug)]
#[command(after_help = SERVE_EXAMPLES)]
struct ServeArgs {
    /// The queue of the requests. Declared, durable, if there is none.
    #[arg(short, long)]
    queue: String,
    /// The most requests that are served at a time.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: u16,
    /// Ends when the connection is lost.
    #[arg(long)]
    no_recover: bool,
    #[command(flatten)]
    connection: ConnectionArgs,
    /// The command for each request, and its arguments.
    #[arg(
        trailing_var_arg = true,
        required = true,
        value_name = "COMMAND",
        allow_hyphen_values = true
    )]
    command: Vec<String>,
}

const SERVE_EXAMPLES: &str = "Examples:
  amqp rpc serve -q squares -- awk '{ print $1 * $1 }'
  amqp rpc serve -q upper --jobs 4 tr a-z A-Z";

impl RpcArgs {
    pub(crate) async fn run(self) -> Outcome {
        match self.side {
            Side::Call(call) => call.run().await,
            Side::Serve(serve) => serve.run().await,
        }
    }
}

/// A task, so that calls go on while others are waited for.
type Call = JoinHandle<Result<Message, RpcError>>;

impl CallArgs {
    async fn run(self) -> Outcome {
        let input_format = match (self.line_buffered, self.null) {
            (true, _) => Format::Lines,
            (_, true) => Format::Nul,
            _ => Format::Raw,
        };
        let publish = basic::Publish::default()
            .exchange(self.exchange.as_str())
            .routing_key(self.routing_key.as_str());
        let properties = self.properties.properties()?;
        let (connection, channel) = self.connection.open("rpc call").await?;
        let client = Client::direct(channel, ClientOptions::default()).await?;
        let replies = Replies {
            connection: connection.clone(),
            client,
            publish,
            properties,
            timeout: self.timeout,
            window: self.window.into(),
            format: self.format.unwrap_or(input_format),
            out: Output::new(),
            calls: VecDeque::new(),
            failed: None,
        };
        let ended = replies.run(self.body, input_format).await;
        let closed = close(&connection).await;
        ended.and(closed)
    }
}

struct Replies {
    connection: Connection,
    client: Client,
    publish: basic::Publish,
    properties: Properties,
    timeout: Duration,
    window: usize,
    format: Format,
    out: Output,
    calls: VecDeque<(u64, Call)>,
    failed: Option<Code>,
}

impl Replies {
    async fn run(mut self, body: Option<OsString>, format: Format) -> Outcome {
        let mut left = Ok(());
        if let Some(body) = body {
            self.call(1, body.into_encoded_bytes()).await;
        } else {
            left = self.call_input(format).await?;
        }
        while !self.calls.is_empty() {
            self.settle().await?;
        }
        self.out.flush()?;
        left?;
        self.failed
            .map_or(Ok(()), |code| Err(Failure::silent(code)))
    }

    /// Sends the input. Returns the reason if some of it is left.
    async fn call_input(&mut self, format: Format) -> Outcome<Outcome> {
        let mut input = input::read(format)?;
        let mut stop = Stop::install().map_err(Failure::failed)?;
        let connection = self.connection.clone();
        let lost = |reason| Failure::from(Error::ConnectionClosed(reason));
        let mut last = 0;
        let failure = 'input: loop {
            self.flush_if_late()?;
            let batch = tokio::select! {
                biased;
                () = stop.requested() => break Failure::failed("interrupted"),
                reason = connection.closed() => break lost(reason),
                result = front(&mut self.calls) => {
                    self.print(result)?;
                    continue;
                }
                batch = input.recv(), if self.calls.len() < self.window => batch,
            };
            let records = match batch {
                None => return Ok(Ok(())),
                Some(Ok(records)) => records,
                Some(Err(failure)) => return Ok(Err(failure)),
            };
            for Record { number, bytes, .. } in records {
                while self.calls.len() >= self.window {
                    self.settle().await?;
                }
                if let Some(reason) = connection.close_reason() {
                    break 'input lost(reason);
                }
                self.call(number, bytes).await;
                last = number;
            }
        };
        let next = last + 1;
        let doing = format!("the input from request {next} on was not sent");
        Ok(Err(failure.while_doing(doing)))
    }

    /// Prints the result of the front call.
    async fn settle(&mut self) -> Outcome {
        self.flush_if_late()?;
        let result = front(&mut self.calls).await;
        self.print(result)
    }

    /// Brings the replies to their place before a wait for the next one.
    fn flush_if_late(&mut self) -> Outcome {
        match self.calls.front() {
            Some((_, call)) if call.is_finished() => Ok(()),
            Some(_) | None => Ok(self.out.flush()?),
        }
    }

    /// Puts a request in line behind those before it, and leaves its reply to a task.
    async fn call(&mut self, number: u64, body: Vec<u8>) {
        let request = OutgoingMessage::new(self.publish.clone(), body);
        let request = request.properties(self.properties.clone());
        let (client, timeout) = (self.client.clone(), self.timeout);
        let mut call = Box::pin(async move { client.call(request, timeout).await });
        // Tasks begin in any order: the first poll is here.
        let call = match poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await {
            Poll::Ready(result) => tokio::spawn(ready(result)),
            Poll::Pending => tokio::spawn(call),
        };
        self.calls.push_back((number, call));
    }

    /// Prints the reply to the front call, which it removes.
    fn print(&mut self, result: Result<Message, RpcError>) -> Outcome {
        let number = self.calls.pop_front().map_or(0, |(number, _)| number);
        match result {
            Ok(reply) => {
                write_delivered(&mut self.out, self.format, &reply)?;
            }
            Err(error) => {
                self.out.flush()?;
                let code = match &error {
                    RpcError::NoServer(_) => Code::Nothing,
                    RpcError::TimedOut => Code::TimedOut,
                    RpcError::NotSent(error) | RpcError::Lost(error) => {
                        Failure::from(error.clone()).code
                    }
                    _ => Code::Failed,
                };
                self.failed.get_or_insert(code);
                note!("request {number}: {error}");
            }
        }
        Ok(())
    }
}

/// Waits for the result of the front call. Cancel safe.
async fn front(calls: &mut VecDeque<(u64, Call)>) -> Result<Message, RpcError> {
    match calls.front_mut() {
        Some((_, call)) => match call.await {
            Ok(result) => result,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        },
        None => std::future::pending().await,
    }
}

impl ServeArgs {
    async fn run(self) -> Outcome {
        if self.queue.is_empty() {
            return Err(Failure::usage("the queue has no name for callers"));
        }
        let recovery = match self.no_recover {
            true => Recovery::Off,
            false => Recovery::On,
        };
        let connection = self
            .connection
            .connect_recovering("rpc serve", recovery)
            .await?;
        let channel = connection.open_channel().await?;
        let mut stop = Stop::install().map_err(Failure::failed)?;
        abort_if_lost(&connection, &stop);
        let name = self.queue.as_str().try_into()?;
        if !exists(&connection, &name).await? {
            let declare = queue::Declare::default().queue(&name).durable(true);
            channel.call(declare).await?;
        }
        let consume = basic::Consume::default().queue(&name);
        let server = Server::open(channel, consume, self.jobs).await?;
        note_losses(&connection);
        let command = self.command;
        let stopped = async move { stop.requested().await };
        let served = server
            .serve_until(stopped, |request| {
                let command = command.clone();
                async move { serve(&command, &request).await }
            })
            .await;
        let closed = close(&connection).await;
        served?;
        closed
    }
}

/// Runs the command for a request.
async fn serve(command: &[String], request: &Message) -> Result<Reply, HandlerError> {
    let method = &request.method;
    let variables = [
        ("AMQP_EXCHANGE", method.exchange.as_str()),
        ("AMQP_ROUTING_KEY", method.routing_key.as_str()),
    ];
    let ended = run_command(command, &variables, &request.body.to_vec(), Stdio::piped()).await;
    let ended = ended.map_err(|error| {
        let _code = error.report();
        HandlerError::new(NOT_RUN, "the command was not run")
    })?;
    if ended.status.success() {
        return Ok(Reply::new(ended.stdout));
    }
    note!("{}: {}", command.join(" "), ended.status);
    Err(HandlerError::new(
        ended.status.code().unwrap_or(NOT_RUN),
        format!(
            "{}: {}",
            command.first().map_or("", String::as_str),
            ended.status
        ),
    ))
}
