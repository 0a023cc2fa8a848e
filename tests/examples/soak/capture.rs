//! The traffic on the loopback interface, recorded by dumpcap and decoded by tshark.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, BufRead as _, BufReader, ErrorKind, Read as _},
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Stdio},
    thread,
    time::Duration,
};

use amqp_tokio::core::{MethodDef, MethodId, dial::Address, uri::Uri};
use amqp_tokio::protocol::basic;

use crate::{Grouped, Result};

const INTERFACE: &str = if cfg!(target_os = "linux") {
    "lo"
} else {
    "lo0"
};

/// How much the kernel keeps for dumpcap, in MiB, so that nothing is dropped.
const BUFFER: &str = "256";

/// The time for dumpcap to take over the kernel's buffer.
const GRACE: Duration = Duration::from_secs(1);

/// A recording that is under way.
#[derive(Debug)]
pub(crate) struct Capture {
    file: PathBuf,
    port: u16,
    dumpcap: Child,
    said: BufReader<ChildStderr>,
}

impl Capture {
    /// Starts to record the traffic of that server.
    pub(crate) fn start(file: &Path, url: &str) -> Result<Self> {
        let uri: Uri = url.parse()?;
        let [Address::Tcp { host, port }] = &uri.addresses[..] else {
            return Err("a capture is of one server".into());
        };
        let address = host.parse::<IpAddr>();
        if host != "localhost" && !address.is_ok_and(|address| address.is_loopback()) {
            return Err(format!("{host} is not reached over the interface {INTERFACE}").into());
        }
        Command::new("tshark")
            .arg("--version")
            .output()
            .map_err(missing("tshark"))?;
        let mut dumpcap = Command::new("dumpcap")
            .args(["-q", "-P", "-i", INTERFACE, "-B", BUFFER])
            .args(["-f", &format!("tcp port {port}"), "-w"])
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(missing("dumpcap"))?;
        let stderr = dumpcap.stderr.take().ok_or("dumpcap has no output")?;
        let mut said = BufReader::new(stderr);
        let mut text = String::new();
        // It names the file when it has begun.
        while !text.contains("File: ") {
            if said.read_line(&mut text)? == 0 {
                dumpcap.wait()?;
                return Err(format!("dumpcap does not record: {}", text.trim()).into());
            }
        }
        Ok(Self {
            file: file.to_owned(),
            port: *port,
            dumpcap,
            said,
        })
    }

    /// Ends the recording.
    pub(crate) fn stop(mut self) -> Result<Recorded> {
        thread::sleep(GRACE);
        let kill = format!("kill -s INT {}", self.dumpcap.id());
        Command::new("sh").args(["-c", &kill]).status()?;
        let mut said = String::new();
        self.said.read_to_string(&mut said)?;
        self.dumpcap.wait()?;
        // Packets captured: 3001
        // Packets received/dropped on interface 'Loopback: lo': 3001/0 (pcap:0/...) (100.0%)
        let after = |label| said.split_once::<&str>(label).map(|(_, rest)| rest);
        let packets = after("Packets captured: ").and_then(|rest| rest.lines().next());
        let dropped = after("Packets received/dropped on interface")
            .and_then(|rest| rest.split("': ").nth(1)?.split(['/', ' ']).nth(1));
        let (Some(packets), Some(dropped)) = (packets, dropped) else {
            return Err(format!("dumpcap does not tell what it has recorded: {said}").into());
        };
        Ok(Recorded {
            file: self.file,
            port: self.port,
            packets: packets.trim().parse()?,
            dropped: dropped.parse()?,
        })
    }
}

/// A recording.
#[derive(Debug)]
pub(crate) struct Recorded {
    file: PathBuf,
    port: u16,
    packets: u64,
    dropped: u64,
}

impl Recorded {
    /// Has it decoded by tshark.
    pub(crate) fn decode(self) -> Result<Decoded> {
        let mut decoded = Decoded {
            packets: self.packets,
            dropped: self.dropped,
            ..Decoded::default()
        };
        let fields = [
            "amqp.type",
            "amqp.method.class",
            "amqp.method.method",
            "_ws.malformed",
        ];
        let arguments = fields.iter().flat_map(|field| ["-e", field]);
        for line in self
            .tshark(["-T", "fields"].into_iter().chain(arguments))?
            .lines()
        {
            let mut fields = line.split('\t').map(|field| {
                let values = field.split(',').filter(|value| !value.is_empty());
                values.map(str::to_owned).collect::<Vec<_>>()
            });
            let mut next = || fields.next().unwrap_or_default();
            let (types, classes, methods, malformed) = (next(), next(), next(), next());
            for kind in types {
                *decoded.frames.entry(kind.parse()?).or_default() += 1;
            }
            for (class, method) in classes.iter().zip(&methods) {
                let id = MethodId::new(class.parse()?, method.parse()?);
                *decoded.methods.entry(id).or_default() += 1;
            }
            decoded.malformed += malformed.len() as u64;
        }
        // Below a heading for each severity: frequency, group, protocol, summary.
        for line in self.tshark(["-q", "-z", "expert"])?.lines() {
            let mut words = line.split_whitespace();
            let count = words.next().and_then(|word| word.parse::<u64>().ok());
            let protocol = words.nth(1);
            if let (Some(count), Some(protocol)) = (count, protocol) {
                if protocol == "TCP" {
                    decoded.of_tcp += count;
                } else {
                    decoded.remarks.push(line.trim().to_owned());
                }
            }
        }
        Ok(decoded)
    }

    fn tshark<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Result<String> {
        let output = Command::new("tshark")
            .arg("-r")
            .arg(&self.file)
            .args(["-d", &format!("tcp.port=={},amqp", self.port)])
            // On loopback, packets that two processors handle are recorded in any order.
            .args(["-o", "tcp.reassemble_out_of_order:TRUE"])
            .args(arguments)
            .output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("tshark: {}: {}", output.status, said.trim()).into());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// The findings of tshark in a recording.
#[derive(Debug, Default)]
pub(crate) struct Decoded {
    packets: u64,
    dropped: u64,
    /// How many AMQP frames of each type.
    frames: BTreeMap<u8, u64>,
    methods: BTreeMap<MethodId, u64>,
    /// The number of frames that tshark calls malformed.
    malformed: u64,
    /// Tshark's remarks on TCP: full windows, for example.
    of_tcp: u64,
    /// Its remarks on all else.
    remarks: Vec<String>,
}

impl Decoded {
    /// Checks that everything was understood, and all messages are in it.
    pub(crate) fn check(&self, messages: u64) -> Result {
        if self.dropped > 0 {
            let dropped = Grouped(self.dropped);
            return Err(format!("dumpcap lost {dropped} packets: record fewer messages").into());
        }
        if self.malformed > 0 || !self.remarks.is_empty() {
            return Err("tshark does not like the recording".into());
        }
        let found = [
            ("publishes", self.count(basic::Publish::ID), messages),
            ("deliveries", self.count(basic::Deliver::ID), messages),
            ("content headers", self.frames(2), 2 * messages),
        ];
        for (what, found, due) in found {
            if found != due {
                let (found, due) = (Grouped(found), Grouped(due));
                return Err(format!("tshark found {found} {what} where {due} are due").into());
            }
        }
        Ok(())
    }

    fn frames(&self, kind: u8) -> u64 {
        self.frames.get(&kind).copied().unwrap_or_default()
    }

    fn count(&self, method: MethodId) -> u64 {
        self.methods.get(&method).copied().unwrap_or_default()
    }
}

impl fmt::Display for Decoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "recorded {} packets, dropped {}",
            Grouped(self.packets),
            Grouped(self.dropped)
        )?;
        for (kind, count) in &self.frames {
            let name = match kind {
                1 => "method",
                2 => "content header",
                3 => "content body",
                8 => "heartbeat",
                _ => "unknown",
            };
            writeln!(f, "{:>9} {name} frames", Grouped(*count))?;
        }
        for (id, count) in &self.methods {
            writeln!(f, "{:>9} {id}", Grouped(*count))?;
        }
        writeln!(f, "{:>9} malformed", Grouped(self.malformed))?;
        let remarks = self.remarks.len() as u64;
        writeln!(f, "{:>9} remarks on AMQP", Grouped(remarks))?;
        for remark in &self.remarks {
            writeln!(f, "          {remark}")?;
        }
        writeln!(f, "{:>9} remarks on TCP", Grouped(self.of_tcp))
    }
}

/// The error for a program that cannot be started.
fn missing(program: &'static str) -> impl FnOnce(io::Error) -> String {
    move |error| match error.kind() {
        ErrorKind::NotFound => format!("--capture needs {program}, which is not installed"),
        _ => format!("{program}: {error}"),
    }
}
