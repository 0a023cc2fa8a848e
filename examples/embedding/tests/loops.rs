//! Each loop in a process of its own, on the embedded broker, and on the broker of `AMQP_URL` if
//! that is set.

use std::{
    env, fs,
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    process::{Command, Output},
    thread,
};

use amqp_blocking::{
    LocalBroker, ServerTls,
    rustls::{ServerConfig, crypto::ring::default_provider, pki_types::PrivateKeyDer},
    serve, serve_tls,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// The programs that speak plain TCP, with a variable for each.
const PLAIN: [(&str, &str, &str); 5] = [
    ("mio", env!("CARGO_BIN_EXE_mio"), ""),
    ("poll", env!("CARGO_BIN_EXE_poll"), ""),
    ("dialer", env!("CARGO_BIN_EXE_dialer"), ""),
    ("io_uring", env!("CARGO_BIN_EXE_io_uring"), ""),
    (
        "io_uring on threads",
        env!("CARGO_BIN_EXE_io_uring"),
        "threads",
    ),
];

fn run(program: &str, kernel: &str, url: &str, arguments: &[&str]) -> Output {
    Command::new(program)
        .args(arguments)
        .env("AMQP_URL", url)
        .env("AMQP_KERNEL", kernel)
        .output()
        .expect("the program starts")
}

fn assert_done(name: &str, output: &Output, messages: u64) {
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {text}{errors}");
    let expected = format!("published, confirmed and consumed: {messages}\n");
    assert_eq!(text, expected, "{name}: {errors}");
}

fn assert_failed(name: &str, output: &Output, reason: &str) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{name}: {errors}");
    assert!(errors.contains(reason), "{name}: {errors}");
}

/// A port of this machine.
fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("a port is free")
}

fn url_of(listener: &TcpListener) -> String {
    let address = listener.local_addr().expect("it has an address");
    format!("amqp://{address}")
}

/// The URLs to run on: the embedded broker's, and the one of the environment.
fn brokers(test: impl Fn(&str)) {
    let broker = LocalBroker::default();
    let server = serve(listener(), broker).expect("it listens");
    test(&format!("amqp://{}", server.local_addr()));
    server.shutdown();
    if let Ok(url) = env::var("AMQP_URL") {
        test(&url);
    }
}

#[test]
fn many_small_messages() {
    brokers(|url| {
        for (name, program, kernel) in PLAIN {
            let output = run(program, kernel, url, &["3000"]);
            assert_done(name, &output, 3000);
        }
    });
}

/// The socket takes them piece by piece.
#[test]
fn large_messages() {
    brokers(|url| {
        for (name, program, kernel) in PLAIN {
            let output = run(program, kernel, url, &["20", "3000000"]);
            assert_done(name, &output, 20);
        }
    });
}

/// The example of `amqp-core`.
#[test]
fn std_alone() {
    let program = env!("CARGO_BIN_EXE_event_loop");
    brokers(|url| {
        let output = run(program, "", url, &[]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}{output:?}");
        assert_eq!(
            text.matches("consumed and acknowledged").count(),
            3,
            "{text}"
        );
    });
    let server = serve(listener(), LocalBroker::default()).expect("it listens");
    let url = format!("amqp://tom:wrong@{}", server.local_addr());
    assert_failed("event_loop", &run(program, "", &url, &[]), "ACCESS_REFUSED");
    server.shutdown();
}

#[test]
fn a_refused_login() {
    let server = serve(listener(), LocalBroker::default()).expect("it listens");
    let url = format!("amqp://tom:wrong@{}", server.local_addr());
    for (name, program, kernel) in PLAIN {
        let output = run(program, kernel, &url, &[]);
        assert_failed(name, &output, "ACCESS_REFUSED");
    }
    server.shutdown();
}

/// The connection breaks in the middle of the messages.
#[test]
fn a_peer_that_hangs_up() {
    for (name, program, kernel) in PLAIN {
        let broker = LocalBroker::default();
        let server = serve(listener(), broker).expect("it listens");
        let relay = listener();
        let url = url_of(&relay);
        let to = server.local_addr();
        let relaying = thread::spawn(move || {
            let (near, _) = relay.accept().expect("a client connects");
            let far = TcpStream::connect(to).expect("the broker accepts");
            forward_some(&near, &far);
        });
        let output = run(program, kernel, &url, &["1000000"]);
        assert_failed(name, &output, "connection");
        relaying.join().expect("the relay ends");
        server.shutdown();
    }
}

/// Forwards 300 kB of a client, and then hangs up on both.
fn forward_some(near: &TcpStream, far: &TcpStream) {
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut from, mut to) = (far, near);
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                if to.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
        });
        let (mut from, mut to) = (near, far);
        let mut buffer = [0; 4096];
        let mut rest = 300_000_usize;
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if rest < count || to.write_all(&buffer[..count]).is_err() {
                break;
            }
            rest -= count;
        }
        for stream in [near, far] {
            let _not_connected = stream.shutdown(Shutdown::Both);
        }
    });
}

#[test]
fn a_port_that_nothing_listens_at() {
    let url = url_of(&listener()); // which is closed again
    for (name, program, kernel) in PLAIN {
        let output = run(program, kernel, &url, &[]);
        assert_failed(name, &output, "127.0.0.1");
    }
}

/// Two addresses that do not work come before the one that does: one refuses the connection, and
/// one hangs up before it has said anything.
#[test]
fn the_dialer_goes_on_to_the_next_address() {
    let broker = LocalBroker::default();
    let server = serve(listener(), broker).expect("it listens");
    let closed = url_of(&listener());
    let mute = listener();
    let url = format!(
        "{closed},{},localhost:{}",
        mute.local_addr().expect("it has an address"),
        server.local_addr().port()
    );
    let hanging_up = thread::spawn(move || drop(mute.accept()));
    let output = run(env!("CARGO_BIN_EXE_dialer"), "", &url, &["100"]);
    assert_done("dialer", &output, 100);
    hanging_up.join().expect("it was connected to");
    server.shutdown();
}

#[test]
fn rustls_in_a_loop() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (authority, tls) = certificates();
    let file = folder.path().join("ca.pem");
    fs::write(&file, authority).expect("a file can be written");
    let broker = LocalBroker::default();
    let server = serve_tls(listener(), tls, broker).expect("it listens");
    let program = env!("CARGO_BIN_EXE_rustls");
    let at = format!("amqps://localhost:{}", server.local_addr().port());
    let url = format!("{at}?cacertfile={}", file.display());
    for arguments in [["3000", "16"], ["20", "3000000"]] {
        let messages = arguments[0].parse().expect("a number");
        let output = run(program, "", &url, &arguments);
        assert_done("rustls", &output, messages);
    }
    // Without the authority, the certificate is of an unknown issuer.
    let output = run(program, "", &at, &[]);
    assert_failed("rustls", &output, "certificate");
    let output = run(
        program,
        "",
        &url.replacen("amqps://", "amqps://tom:wrong@", 1),
        &[],
    );
    assert_failed("rustls", &output, "ACCESS_REFUSED");
    server.shutdown();
}

/// An authority, as PEM, and the settings of a server with a certificate of it for `localhost`.
fn certificates() -> (String, ServerTls) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let signing = KeyPair::generate().expect("a key");
    let root = params.self_signed(&signing).expect("a certificate");
    let issuer = Issuer::new(params, signing);
    let key = KeyPair::generate().expect("a key");
    let certificate = CertificateParams::new(["localhost".to_owned()])
        .and_then(|params| params.signed_by(&key, &issuer))
        .expect("a certificate");
    let config = ServerConfig::builder_with_provider(default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).expect("a key"),
        )
        .expect("the key fits");
    (root.pem(), config.into())
}
