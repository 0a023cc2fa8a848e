//! The embedded AMQP 0-9-1 broker as a program of its own: its command line, listeners, log and
//! page. `README.md` has its use.
#![forbid(unsafe_code)]

mod accounts;
mod addresses;
mod clients;
#[cfg(unix)]
mod files;
mod listeners;
mod log;
mod options;
mod page;
mod stop;
mod storage;
mod tls;

use std::{env, io, io::Write as _, process::ExitCode};

#[cfg(target_os = "linux")]
use tikv_jemallocator::Jemalloc;

use self::{
    clients::Clients,
    log::Log,
    options::{Command, Options},
};

/// Gives the memory of an emptied queue back to the system within ten seconds, by a thread of its own,
/// and so also when nothing happens any more. The allocator of glibc keeps it: after a purge of
/// 844,000 messages of 1 KiB, 1 GiB.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    let options = match options::parse(env::args_os().skip(1)) {
        Ok(Command::Run(options)) => *options,
        Ok(Command::Print(text)) => {
            print(text);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("amqp-broker: {error}\nTry: amqp-broker --help");
            return ExitCode::from(2);
        }
    };
    #[cfg(unix)]
    files::raise_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(run(options)),
        Err(error) => Err(format!("cannot start: {error}")),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("amqp-broker: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Serves a broker until a signal stops it. Returns the reason of a failed start.
async fn run(mut options: Options) -> Result<(), String> {
    let mut stop =
        stop::Signals::new().map_err(|error| format!("cannot handle signals: {error}"))?;
    let log = Log::new(options.verbosity);
    let tls = options.tls.as_ref().map(tls::load).transpose()?;
    let definitions = match options.definitions {
        None => None,
        Some((path, accounts)) => {
            let definitions = accounts::read(&path)?;
            accounts.configure(&mut options.config, Some(&definitions))?;
            Some((path, definitions))
        }
    };
    let broker = storage::open(options.config, options.data.as_deref())?;
    if let Some((path, definitions)) = &definitions {
        let applied = broker.with(|broker| accounts::apply(broker, definitions, path));
        for warning in applied? {
            log.warning(format_args!("{}: {warning}", path.display()));
        }
    }
    let has_guest = broker.with(|broker| accounts::has_guest(broker));
    let listeners = listeners::bind(&options.listen).await?;
    let page = match &options.http {
        Some(at) => Some(page::Page::bind(at).await?),
        None => None,
    };
    let addresses: Vec<String> = listeners.iter().map(ToString::to_string).collect();
    for listener in &listeners {
        if has_guest && listener.is_exposed() {
            log.warning(format_args!(
                "{listener}: user 'guest' can log in from other hosts with its default password, \
                 which RabbitMQ allows from localhost only \
                 (https://www.rabbitmq.com/docs/access-control); --user sets other users"
            ));
        }
    }
    let clients = Clients::new(broker.clone(), log);
    for listener in listeners {
        clients.serve(listener, tls.clone());
    }
    for address in &addresses {
        print(format_args!("listening on {address}\n"));
    }
    if let Some(page) = page {
        let url = page.url();
        if page.is_exposed() {
            log.warning(format_args!(
                "{url}: the page needs no login, and shows messages to other hosts"
            ));
        }
        page.serve(broker.clone(), clients.registry(), addresses)?;
        print(format_args!("page on {url}\n"));
    }
    let failure = tokio::select! {
        signal = stop.received() => {
            log.info(format_args!("{signal}: closing the connections"));
            stop.exit_at_next();
            None
        }
        error = storage::failed(&broker), if options.data.is_some() => Some(error),
    };
    clients.shut_down().await;
    let stored = broker.stored().await.map_err(|error| error.to_string());
    failure.map_or(stored, Err)?;
    log.info(format_args!("stopped"));
    Ok(())
}

/// Prints to the standard output. Ignores that it is closed.
fn print(text: impl std::fmt::Display) {
    let mut out = io::stdout().lock();
    let _closed = write!(out, "{text}").and_then(|()| out.flush());
}
