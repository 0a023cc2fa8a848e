//! Logs in at `AMQP_HOST`, port `AMQP_PORT`, with a client certificate in place of a password.
//!
//! `CA_FILE` has the authority that has issued the server's certificate, `CERT_FILE` and `KEY_FILE`
//! the certificate of this program and its key, in PEM form.

use std::{env, error::Error, fs};

use amqp_tokio::{
    Certificates, Config, ConnectError, Identity, Key, Options, TlsError, TlsOptions, connect_with,
    core::{dial::Address, sasl::External},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let file = |variable: &str| -> Result<String, Box<dyn Error>> {
        Ok(fs::read_to_string(env::var(variable)?)?)
    };
    let tls = TlsOptions::default()
        .authorities(Certificates::pem(file("CA_FILE")?))
        .identity(Identity::new(
            Certificates::pem(file("CERT_FILE")?),
            Key::pem(file("KEY_FILE")?),
        ));
    let host = env::var("AMQP_HOST")?;
    let port = env::var("AMQP_PORT")?.parse()?;
    let options = Options::default()
        .addresses([Address::tcp(host, port)])
        .tls(tls)
        .config(Config::default().mechanisms(vec![Box::new(External::new())]));

    match connect_with(&options).await {
        Ok(connection) => {
            let shown = connection.peer_certificates().len();
            println!("logged in; the server has shown {shown} certificates");
            connection.close().await?;
            Ok(())
        }
        Err(ConnectError::Tls { error, .. }) => Err(explain(&error).into()),
        Err(error) => Err(error.into()),
    }
}

/// The side whose certificate was refused, for the log.
fn explain(error: &TlsError) -> String {
    match error {
        TlsError::Setup(_) => format!("a file or a setting of this program: {error}"),
        TlsError::Certificate(_) => format!("the certificate of the server: {error}"),
        TlsError::ClientCertificate(_) => format!("the certificate of this program: {error}"),
        _ => error.to_string(),
    }
}
