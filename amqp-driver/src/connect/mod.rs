//! Opening connections, on any runtime.

pub(crate) mod credentials;
mod dialing;
pub(crate) mod error;
pub(crate) mod opening;
pub(crate) mod options;
mod repeated;
mod service;

use std::sync::Arc;

use amqp_core::{ApiMisuse, client::Config, dial::Address};

pub use self::dialing::dial;
use self::{
    credentials::{CredentialsError, log_in},
    dialing::Dialing,
    error::ConnectError,
    opening::{First, Opening},
    options::Options,
    repeated::connect_until,
};
#[cfg(feature = "tracing")]
use crate::trace;
use crate::{
    connection::Connection,
    error::Error,
    io::{Runtime, Timer, Transport, within},
    tls::{Secured, TlsError, TlsErrorTap},
};

/// Connects to the first address that answers, opens a connection, and spawns its driver.
///
/// If a host does not answer, cannot be secured, or does not open the connection, the next one is
/// tried, which may be another address of the same name. Refused credentials are not tried
/// elsewhere.
///
/// # Cancel safety
/// Dropping it closes the streams opened so far.
///
/// # Errors
/// When no address could be reached, or none opened a connection.
pub async fn connect<R: Runtime>(
    runtime: &R,
    options: &Options,
) -> Result<Connection, ConnectError> {
    let mut first = First { runtime, options };
    match &options.recovery {
        Some(policy) if policy.first_connect => {
            connect_until(runtime, options, policy, &mut first).await
        }
        _ => connect_as(runtime, options, &mut first).await,
    }
}

/// Connects to the first address that answers, and opens a connection.
pub(crate) async fn connect_as<R: Runtime, O: Opening>(
    runtime: &R,
    options: &Options,
    opening: &mut O,
) -> Result<O::Opened, ConnectError> {
    let dialing = dial_and_open(runtime, options, opening);
    #[cfg(feature = "tracing")]
    let dialing = tracing::Instrument::instrument(dialing, trace::connecting(&options.addresses));
    dialing.await
}

async fn dial_and_open<R: Runtime, O: Opening>(
    runtime: &R,
    options: &Options,
    opening: &mut O,
) -> Result<O::Opened, ConnectError> {
    options.check()?;
    runtime.check()?;
    let mut dialing = Dialing::new(runtime, options);
    while let Some((attempt, address, stream)) = dialing.next_stream().await {
        match secure_and_open(runtime, options, opening, &address, stream).await {
            Ok(opened) => return Ok(opened),
            Err(error) => dialing.handle_refused(attempt, &address, error)?,
        }
    }
    Err(dialing.into_error(options))
}

/// Opens a connection over a stream that was just made to `address`: secures the stream if the
/// options say so, and spawns the driver. [`connect`] does so with each stream; this function is
/// for applications that dial by themselves. It ignores the options' addresses, their order and the
/// TCP settings.
///
/// Such a connection does not recover: there is no dialer for a next one.
///
/// ```no_run
/// use amqp_driver::{Connection, Options, connect_over, core::dial::Address, io::Runtime};
/// use std::error::Error;
///
/// /// Connects through a port here that is forwarded to a host which only the other end can name.
/// async fn connect<R: Runtime>(runtime: &R) -> Result<Connection, Box<dyn Error>> {
///     let options = Options::from_uri("amqps://me:secret@broker.internal")?;
///     let stream = runtime.connect_tcp("127.0.0.1:15671".parse()?, None).await?;
///     // The name to find in the certificate, and in errors.
///     let address = Address::tcp("broker.internal", 5671);
///     Ok(connect_over(runtime, &options, &address, stream).await?)
/// }
/// ```
///
/// # Cancel safety
/// Dropping it closes the stream.
///
/// # Errors
/// When the stream cannot be secured, there are no credentials, or the connection cannot be opened.
/// [`ApiMisuse::Config`] if the options have a [`recovery`](Options::recovery).
pub async fn connect_over<R: Runtime>(
    runtime: &R,
    options: &Options,
    address: &Address,
    stream: R::Stream,
) -> Result<Connection, ConnectError> {
    if options.recovery.is_some() {
        // After a loss the addresses would be dialled, and sent the credentials.
        return Err(ConnectError::Misuse(ApiMisuse::Config {
            setting: "recovery",
            problem: "is not for a stream that was made elsewhere",
        }));
    }
    runtime.check()?;
    let mut first = First { runtime, options };
    secure_and_open(runtime, options, &mut first, address, stream).await
}

async fn secure_and_open<R: Runtime, O: Opening>(
    runtime: &R,
    options: &Options,
    opening: &mut O,
    address: &Address,
    stream: R::Stream,
) -> Result<O::Opened, ConnectError> {
    let opened = secure(runtime, options, opening, address, stream);
    #[cfg(feature = "tracing")]
    let opened = tracing::Instrument::instrument(opened, trace::handshake(address));
    opened.await
}

/// Secures the stream if the options say so, and opens a connection over it.
async fn secure<R: Runtime, O: Opening>(
    runtime: &R,
    options: &Options,
    opening: &mut O,
    address: &Address,
    stream: R::Stream,
) -> Result<O::Opened, ConnectError> {
    let Secured {
        stream,
        certificates,
    } = secure_stream(runtime, options, address, stream).await?;
    if options.tls.is_none() {
        return greet(runtime, options, opening, address, stream, certificates).await;
    }
    let (stream, complaint) = TlsErrorTap::new(stream);
    let failed = |error| no_tls(address, error);
    greet(runtime, options, opening, address, stream, certificates)
        .await
        .map_err(|error| complaint.take().map_or(error, failed))
}

/// Secures the stream if the options say so.
async fn secure_stream<R: Runtime>(
    runtime: &R,
    options: &Options,
    address: &Address,
    stream: R::Stream,
) -> Result<Secured<R::Stream>, ConnectError> {
    let Some(tls) = &options.tls else {
        return Ok(Secured {
            stream,
            certificates: Vec::new(),
        });
    };
    let failed = |error| no_tls(address, error);
    let tls = tls.for_host(address).map_err(failed)?;
    let securing = runtime.secure(stream, &tls);
    let limit = options.tls_timeout;
    let secured = within(&mut runtime.clock(), limit, securing).await;
    let secured = secured.ok_or_else(|| failed(TlsError::TimedOut(limit)))?;
    secured.map_err(|error| failed(error.into()))
}

fn no_tls(address: &Address, error: TlsError) -> ConnectError {
    ConnectError::Tls {
        address: address.clone(),
        error,
    }
}

/// Opens a connection over a stream that is ready for AMQP.
async fn greet<R: Runtime, O: Opening>(
    runtime: &R,
    options: &Options,
    opening: &mut O,
    address: &Address,
    stream: impl Transport + Unpin + 'static,
    certificates: Vec<Vec<u8>>,
) -> Result<O::Opened, ConnectError> {
    let mut config = options.config.clone();
    config.resumable = options.recovery.is_some();
    let limit = config.timeouts.handshake;
    let (mut clock, mut expires_at) = (runtime.clock(), None);
    if let Some(provider) = &options.credentials {
        let asked = within(&mut clock, limit, provider.login()).await;
        let late = || Err(CredentialsError("the provider took too long".into()));
        let login = asked.unwrap_or_else(late)?;
        log_in(&mut config, &login)?;
        expires_at = login.expires_in.map(|time| clock.now() + time);
    }
    let opened = opening.open(config, stream, certificates.into()).await;
    let (opened, shared) = opened.map_err(|error| ConnectError::NotOpened {
        address: address.clone(),
        error,
    })?;
    if let (Some(provider), Some(expires_at)) = (&options.credentials, expires_at) {
        let left = expires_at - clock.now();
        let provider = Arc::clone(provider);
        runtime.spawn(credentials::renew(shared, provider, left, limit));
    }
    Ok(opened)
}

/// Opens a connection over an existing transport, and spawns its driver.
///
/// # Cancel safety
/// Dropping it closes the connection.
///
/// # Errors
/// When the connection cannot be opened, or the configuration has a setting that no server would
/// accept.
pub async fn from_transport<R: Runtime>(
    runtime: &R,
    transport: impl Transport + Unpin + 'static,
    config: Config,
) -> Result<Connection, Error> {
    runtime.check()?;
    let (connection, driver) = Connection::start(config, transport, runtime.clock())?;
    runtime.spawn(driver);
    connection.opened().await?;
    Ok(connection)
}
