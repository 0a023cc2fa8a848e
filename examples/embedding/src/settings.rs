//! The settings of an example.

use std::{env, net::TcpStream};

use amqp_core::{
    client::Config,
    dial::Address,
    uri::{Scheme, Uri},
};

use crate::{Application, Failure};

/// The broker, from the environment variable `AMQP_URL`, and the work, from the arguments.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The broker. Default `amqp://127.0.0.1`.
    pub uri: Uri,
    /// The number of messages, the first argument. Default 1000.
    pub messages: u64,
    /// The size of each body in bytes, the second argument. Default 16.
    pub size: usize,
}

impl Settings {
    /// Reads the settings.
    ///
    /// # Errors
    /// If the URL or an argument is invalid.
    pub fn from_environment() -> Result<Self, Failure> {
        let url = env::var("AMQP_URL").unwrap_or_else(|_| "amqp://127.0.0.1".to_owned());
        let mut arguments = env::args().skip(1);
        Ok(Self {
            uri: url.parse()?,
            messages: arguments.next().map_or(Ok(1000), |it| it.parse())?,
            size: arguments.next().map_or(Ok(16), |it| it.parse())?,
        })
    }

    /// Returns the configuration of the machine.
    ///
    /// # Errors
    /// If the login cannot be expressed in the protocol.
    pub fn config(&self) -> Result<Config, Failure> {
        Ok(Config::from_uri(&self.uri)?)
    }

    /// Returns the application.
    #[must_use]
    pub fn application(&self) -> Application {
        Application::new(self.messages, self.size)
    }

    /// Connects to the first address that accepts, and makes the socket non-blocking. The example
    /// `dialer` shows the better way.
    ///
    /// # Errors
    /// If the scheme is another one, or if no address accepts.
    pub fn connect(&self, scheme: Scheme) -> Result<TcpStream, Failure> {
        if self.uri.scheme != scheme {
            return Err(format!("this example connects to {scheme} only").into());
        }
        let mut failures = Vec::new();
        for address in &self.uri.addresses {
            let Address::Tcp { host, port } = address else {
                continue;
            };
            match TcpStream::connect((host.as_str(), *port)) {
                Ok(socket) => {
                    socket.set_nodelay(true)?;
                    socket.set_nonblocking(true)?;
                    return Ok(socket);
                }
                Err(error) => failures.push(format!("{address}: {error}")),
            }
        }
        Err(failures.join("; ").into())
    }
}
