//! The machine behind [rustls](::rustls), in a loop of one's own on `poll(2)`.
//!
//! TLS is a machine between the two: plain bytes on one side, records on the other. Each turn moves
//! output down through both, waits, and moves input up through both.

use std::process::ExitCode;

#[cfg(unix)]
mod unix {
    use std::{
        io::{self, ErrorKind, Read as _, Write as _},
        net::{Shutdown, TcpStream},
        sync::Arc,
    };

    use amqp_core::{
        Transmit,
        bytes::{Buf as _, BytesMut},
        client::Connection,
        uri::{Scheme, ServerNameIndication, Verify},
    };
    use amqp_embedding::{Clock, Failure, READ, Settings, end_of, handle_error, is_temporary};
    use rustix::{
        event::{PollFd, PollFlags, Timespec, poll},
        io::Errno,
    };
    use rustls::{
        ClientConfig, ClientConnection, RootCertStore,
        crypto::ring::default_provider,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    };

    pub(super) fn run(settings: Settings) -> Result<(), Failure> {
        let clock = Clock::start();
        let mut socket = settings.connect(Scheme::Amqps)?;
        let mut tls = client(&settings)?;
        let mut machine = Connection::new(settings.config()?, clock.now())?;
        let mut application = settings.application();
        let mut buffer = vec![0; READ];
        let (mut input, mut output) = (BytesMut::new(), Transmit::new());
        loop {
            // Down, until nothing is left or the socket takes no more. The machine is asked only when
            // TLS has nothing left to write: then it is right that the peer has taken the rest.
            let mut broken = false;
            while !broken && (!output.is_empty() || tls.wants_write() || machine.has_transmit()) {
                if output.is_empty() && !tls.wants_write() {
                    machine.poll_transmit(clock.now(), &mut output);
                }
                let count = tls.writer().write(output.chunk())?; // 0 if its buffer is full
                output.advance(count);
                broken = write_records(&mut tls, &mut socket, &mut machine, &clock).is_err();
                if tls.wants_write() || (count == 0 && !output.is_empty()) {
                    break;
                }
            }
            if broken {
                output.clear();
            }
            if machine.is_finished() && (broken || output.is_empty() || tls.wants_write()) {
                tls.send_close_notify();
                let _last = write_records(&mut tls, &mut socket, &mut machine, &clock);
                let _not_connected = socket.shutdown(Shutdown::Write);
                return end_of(&machine);
            }

            let reading = !application.is_busy();
            machine.set_reading(clock.now(), reading);
            let mut wanted = PollFlags::empty();
            wanted.set(PollFlags::IN, reading);
            wanted.set(PollFlags::OUT, tls.wants_write());
            let mut sockets = [PollFd::new(&socket, wanted)];
            let deadline = machine.poll_timeout().map(|(at, _)| at - clock.now());
            let timeout = match application.has_work() {
                true => Some(Timespec::default()),
                false => deadline.map(Timespec::try_from).transpose()?,
            };
            match poll(&mut sockets, timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }

            // Up.
            let ready = sockets[0].revents();
            if reading && ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                match tls.read_tls(&mut socket) {
                    Err(error) if is_temporary(&error) => {}
                    Err(error) => handle_error(&mut machine, clock.now(), &error),
                    Ok(_) => {
                        if let Err(error) = tls.process_new_packets() {
                            let _alert = tls.write_tls(&mut socket);
                            machine.handle_transport_error(clock.now(), &error.to_string());
                        }
                    }
                }
                loop {
                    match tls.reader().read(&mut buffer) {
                        Ok(count) if count > 0 => {
                            input.extend_from_slice(&buffer[..count]);
                            machine.handle_input(clock.now(), &mut input);
                        }
                        Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                        // The end, with `close_notify` or without: the protocol has a close of its
                        // own, without which no end is a clean one.
                        _ => {
                            machine.handle_eof(clock.now());
                            break;
                        }
                    }
                }
            }
            machine.handle_timeout(clock.now());
            application.step(&mut machine)?;
        }
    }

    /// Writes records until there is none, or the socket takes no more.
    fn write_records(
        tls: &mut ClientConnection,
        socket: &mut TcpStream,
        machine: &mut Connection,
        clock: &Clock,
    ) -> io::Result<()> {
        while tls.wants_write() {
            match tls.write_tls(socket) {
                Ok(_) => machine.handle_written(clock.now()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    handle_error(machine, clock.now(), &error);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// TLS with the authorities of the URI's `cacertfile`, or those of the system.
    fn client(settings: &Settings) -> Result<ClientConnection, Failure> {
        let parameters = &settings.uri.tls;
        if parameters.verify == Some(Verify::None) {
            return Err("this example verifies the server in any case".into());
        }
        let mut roots = RootCertStore::empty();
        if let Some(file) = &parameters.cacertfile {
            for certificate in CertificateDer::pem_file_iter(file)? {
                roots.add(certificate?)?;
            }
        } else {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = match &parameters.server_name_indication {
            Some(ServerNameIndication::Name(name)) => name.as_str(),
            _ => settings.uri.addresses[0].host().ok_or("no host")?,
        };
        let name = ServerName::try_from(name.to_owned())?;
        Ok(ClientConnection::new(Arc::new(config), name)?)
    }
}

#[cfg(unix)]
fn main() -> ExitCode {
    amqp_embedding::run(unix::run)
}

#[cfg(not(unix))]
fn main() -> ExitCode {
    eprintln!("error: this system has no poll(2)");
    ExitCode::FAILURE
}
