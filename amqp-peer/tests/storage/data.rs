//! Data that the tests store, and processes that run one test.

use std::{
    collections::BTreeMap,
    env,
    error::Error,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use amqp_peer::{
    Message, MessageId, PeerName,
    storage::{
        Change, SqliteStorage, Storage, StorageError, StorageErrorKind, Stored, StoredMessage,
    },
};

pub(crate) type Outcome = Result<(), Box<dyn Error>>;

/// The variable with the path for a test that another one runs in a process of its own.
const CHILD: &str = "AMQP_STORAGE_OF_CHILD";

pub(crate) fn bob() -> PeerName {
    "bob".parse().expect("a name")
}

pub(crate) fn id(number: u64) -> MessageId {
    MessageId::from_bytes(u128::from(number).to_be_bytes())
}

/// Bytes of a number that fill a page and more if they are long enough.
pub(crate) fn body(number: u64, len: usize) -> Vec<u8> {
    let text = format!("message {number} ");
    text.bytes().cycle().take(len).collect()
}

pub(crate) fn message(number: u64, len: usize) -> StoredMessage {
    StoredMessage {
        id: id(number),
        body: body(number, len).into(),
        properties: Message::default().persistent().to_wire(),
        expires_at: number
            .is_multiple_of(3)
            .then(|| Duration::from_millis(number)),
    }
}

pub(crate) fn push(sequence: u64, len: usize) -> Change {
    Change::Pushed {
        to: bob(),
        sequence,
        message: message(sequence, len),
    }
}

pub(crate) fn remove_to(up_to: u64) -> Change {
    Change::RemovedTo { to: bob(), up_to }
}

pub(crate) fn accept(position: u64) -> Change {
    Change::Accepted {
        from: bob(),
        id: id(position),
        position,
    }
}

/// The messages of those sequences, as the whole of what is stored.
pub(crate) fn messages(sequences: impl IntoIterator<Item = u64>, len: usize) -> Stored {
    let messages = sequences.into_iter().map(|it| (it, message(it, len)));
    let messages: Vec<_> = messages.collect();
    let mut stored = Stored::default();
    if !messages.is_empty() {
        stored.outbox = BTreeMap::from([(bob(), messages)]);
    }
    stored
}

/// A file in a folder of its own, which is removed with it.
pub(crate) struct File {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) path: PathBuf,
}

impl File {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("peer.sqlite");
        Self { folder, path }
    }

    pub(crate) fn log(&self) -> PathBuf {
        log(&self.path)
    }

    pub(crate) fn open(&self) -> Result<SqliteStorage, StorageError> {
        SqliteStorage::open(&self.path)
    }

    pub(crate) fn load(&self) -> Result<Stored, StorageError> {
        self.open()?.load()
    }
}

/// The write-ahead log of a file.
pub(crate) fn log(path: &Path) -> PathBuf {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    log.into()
}

/// Checks the kind of a failure, and that its text has the path.
pub(crate) fn fails<T>(result: Result<T, StorageError>, kind: StorageErrorKind) -> StorageError {
    let error = result.err().expect("an error");
    assert_eq!(error.kind(), kind, "{error}");
    let path = error.path().expect("a path").display().to_string();
    assert!(error.to_string().contains(&path), "{error}");
    error
}

/// The path, in a process that [`process`] has started.
pub(crate) fn path_of_child() -> Option<PathBuf> {
    env::var_os(CHILD).map(PathBuf::from)
}

/// A process that runs one test on a path, after a prefix such as `sh -c SCRIPT`.
pub(crate) fn process(test: &str, path: &Path, prefix: &[&str]) -> Command {
    let program = env::current_exe().expect("a program");
    let mut command = match prefix {
        [] => Command::new(&program),
        [first, others @ ..] => {
            let mut command = Command::new(first);
            command.args(others).arg(&program);
            command
        }
    };
    command.args(["--exact", test, "--nocapture"]);
    command.env(CHILD, path);
    command
}

/// The output of a process that passed its test. `None` if it could not be started: where it says
/// `no such place`, it had no chance to be.
pub(crate) fn passed(output: &Output) -> Option<String> {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    if errors.contains("no such place") {
        eprintln!("not checked: {errors}");
        return None;
    }
    assert!(output.status.success(), "{said}{errors}");
    assert!(said.contains("1 passed"), "{said}{errors}");
    Some(said)
}

/// A process that runs one test in a file system of its own, of that size, mounted at the path.
pub(crate) fn process_in_file_system(test: &str, folder: &Path, size: &str) -> Option<String> {
    let script = format!(
        "mount -t tmpfs -o size={size} none {} || {{ echo no such place >&2; exit 1; }}; \
         exec \"$0\" \"$@\"",
        folder.display()
    );
    let unshare = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        &script,
    ];
    let output = process(test, folder, &unshare).output();
    match output {
        Ok(output) if String::from_utf8_lossy(&output.stderr).starts_with("unshare:") => {
            eprintln!("not checked: {output:?}");
            None
        }
        Ok(output) => passed(&output),
        Err(error) => {
            eprintln!("not checked: {error}");
            None
        }
    }
}

/// Runs a command that must succeed.
pub(crate) fn run(command: [&str; 4]) {
    let [program, arguments @ ..] = command;
    let status = Command::new(program).args(arguments).status();
    assert!(status.expect("the command").success(), "{command:?}");
}
