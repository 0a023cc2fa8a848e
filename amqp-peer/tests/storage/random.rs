//! Random changes, with the storage closed and opened in between, against the model.

use std::time::Duration;

use amqp_core::{EncodedProperties, protocol::basic::Properties};
use amqp_peer::{
    MessageId, PeerName,
    storage::{
        Change, MemoryStorage, SqliteStorage, Storage, StorageError, StorageErrorKind,
        StoredMessage, WallTime,
    },
};
use proptest::prelude::*;

use super::{data::File, model::Model};

#[derive(Clone, Debug)]
enum Step {
    Apply(Vec<Change>),
    /// A batch that ends with a change that is refused.
    Refused(Vec<Change>),
    Load,
    Reopen,
}

fn names() -> impl Strategy<Value = PeerName> {
    let texts = ["bob", "Bob", "alice", "\u{e9}", "e\u{301}", "%", "bob "];
    prop::sample::select(texts.to_vec()).prop_map(|text| PeerName::new(text).expect("a name"))
}

/// Few, so that changes meet.
fn numbers() -> impl Strategy<Value = u64> {
    prop_oneof![9 => 0..12_u64, 1 => prop::sample::select(&[255, 256, 1 << 32, i64::MAX as u64])]
}

fn ids() -> impl Strategy<Value = MessageId> {
    (0..6_u8, 0..2_u8).prop_map(|(first, last)| {
        let mut id = [first; 16];
        id[15] = last;
        MessageId::from_bytes(id)
    })
}

fn durations() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (0..5_u64).prop_map(Duration::from_secs),
        any::<(u64, u32)>()
            .prop_map(|(seconds, rest)| Duration::new(seconds, rest % 1_000_000_000)),
    ]
}

fn bodies() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        40 => prop::collection::vec(any::<u8>(), 0..40),
        8 => (any::<u8>(), 3900..9000_usize).prop_map(|(byte, len)| vec![byte; len]),
        1 => (any::<u8>(), (1_usize << 20) - 1..(2 << 20) + 2).prop_map(|(byte, len)| vec![byte; len]),
    ]
}

fn messages() -> impl Strategy<Value = StoredMessage> {
    let priority = prop::option::of(any::<u8>());
    let expiry = prop::option::of(durations());
    (ids(), bodies(), priority, expiry).prop_map(|(id, body, priority, expires_at)| {
        let properties = Properties {
            priority,
            delivery_mode: Some(2),
            ..Properties::default()
        };
        StoredMessage {
            id,
            body: body.into(),
            properties: EncodedProperties::from(&properties),
            expires_at,
        }
    })
}

fn changes() -> impl Strategy<Value = Change> {
    let since = prop::option::of(durations().prop_map(WallTime));
    prop_oneof![
        8 => (names(), numbers(), messages())
            .prop_map(|(to, sequence, message)| Change::Pushed { to, sequence, message }),
        3 => (names(), numbers()).prop_map(|(to, sequence)| Change::Removed { to, sequence }),
        2 => (names(), numbers()).prop_map(|(to, up_to)| Change::RemovedTo { to, up_to }),
        1 => names().prop_map(|to| Change::Cleared { to }),
        4 => (names(), ids(), numbers())
            .prop_map(|(from, id, position)| Change::Accepted { from, id, position }),
        2 => (names(), numbers()).prop_map(|(from, below)| Change::Forgotten { from, below }),
        2 => (names(), durations(), since)
            .prop_map(|(name, disconnected, since)| Change::Clock { name, disconnected, since }),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let batch = || prop::collection::vec(changes(), 0..12);
    let step = prop_oneof![
        6 => batch().prop_map(Step::Apply),
        1 => batch().prop_map(Step::Refused),
        1 => Just(Step::Load),
        2 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..30)
}

fn run<S: Storage>(
    steps: &[Step],
    mut open: impl FnMut() -> Result<S, StorageError>,
) -> Result<(), TestCaseError> {
    let fail = |error: StorageError| TestCaseError::fail(error.to_string());
    let mut model = Model::default();
    let mut storage = open().map_err(fail)?;
    for step in steps {
        match step {
            Step::Apply(changes) => {
                storage.apply(changes).map_err(fail)?;
                model.apply(changes);
            }
            Step::Refused(changes) => {
                let beyond = Change::RemovedTo {
                    to: PeerName::new("bob").expect("a name"),
                    up_to: u64::MAX,
                };
                let changes = [&changes[..], &[beyond]].concat();
                let error = storage.apply(&changes).expect_err("a refusal");
                prop_assert_eq!(error.kind(), StorageErrorKind::Misuse);
            }
            Step::Load => prop_assert_eq!(storage.load().map_err(fail)?, model.stored()),
            Step::Reopen => {
                drop(storage);
                storage = open().map_err(fail)?;
                prop_assert_eq!(storage.load().map_err(fail)?, model.stored());
            }
        }
    }
    drop(storage);
    let loaded = open().and_then(|mut storage| storage.load());
    prop_assert_eq!(loaded.map_err(fail)?, model.stored());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn memory_is_as_the_model(steps in steps()) {
        let kept = MemoryStorage::new();
        run(&steps, || Ok(kept.clone()))?;
    }

    #[test]
    fn sqlite_is_as_the_model(steps in steps()) {
        let file = File::new();
        run(&steps, || SqliteStorage::open(&file.path))?;
    }
}
