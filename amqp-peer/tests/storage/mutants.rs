//! Storages with a fault each: the suite finds every one of them.

use std::{collections::BTreeMap, mem};

use amqp_peer::{
    MessageId, PeerName,
    storage::{
        Change, MAX_SEQUENCE, MemoryStorage, Storage, StorageError, StorageErrorKind, Stored,
        StoredMessage, conformance,
    },
};

/// The treatment of batches and of loaded contents by a broken storage.
trait Fault: Default + Send + 'static {
    fn apply(&mut self, sound: &mut MemoryStorage, changes: &[Change]) -> Result<(), StorageError> {
        sound.apply(changes)
    }

    fn load(&mut self, stored: Stored) -> Result<Stored, StorageError> {
        Ok(stored)
    }
}

struct Mutant<F> {
    sound: MemoryStorage,
    fault: F,
}

impl<F: Fault> Storage for Mutant<F> {
    fn load(&mut self) -> Result<Stored, StorageError> {
        self.fault.load(self.sound.load()?)
    }

    fn apply(&mut self, changes: &[Change]) -> Result<(), StorageError> {
        self.fault.apply(&mut self.sound, changes)
    }
}

fn mutant<F: Fault>(sound: &MemoryStorage) -> Mutant<F> {
    Mutant {
        sound: sound.clone(),
        fault: F::default(),
    }
}

/// Checks that cases of these names fail, and say something about it.
fn fails<F: Fault>(names: &[&str]) {
    for name in names {
        let cases = conformance::cases();
        let case = cases.iter().find(|case| case.name() == *name);
        let kept = MemoryStorage::new();
        let checked = case
            .expect("a case of that name")
            .check(|| Ok(mutant::<F>(&kept)));
        let failure = checked.expect_err("the case passes a broken storage");
        let text = failure.to_string();
        assert!(text.contains(name), "{text}");
        assert!((10..3000).contains(&failure.text().len()), "{text}");
    }
}

/// A mutant of the changes, one by one.
macro_rules! changes {
    ($test:ident, $($change:pat $(if $guard:expr)? => $become:expr),+; $($case:literal),+) => {
        #[test]
        fn $test() {
            #[derive(Default)]
            struct Broken;
            impl Fault for Broken {
                fn apply(
                    &mut self,
                    sound: &mut MemoryStorage,
                    changes: &[Change],
                ) -> Result<(), StorageError> {
                    let changes: Vec<Change> = changes
                        .iter()
                        .flat_map(|change| match change.clone() {
                            $($change $(if $guard)? => $become,)+
                            #[allow(unreachable_patterns)]
                            other => vec![other],
                        })
                        .collect();
                    sound.apply(&changes)
                }
            }
            fails::<Broken>(&[$($case),+]);
        }
    };
}

/// A mutant of loaded contents.
macro_rules! loads {
    ($test:ident, $stored:ident => $break:block; $($case:literal),+) => {
        #[test]
        fn $test() {
            #[derive(Default)]
            struct Broken;
            impl Fault for Broken {
                fn load(&mut self, mut $stored: Stored) -> Result<Stored, StorageError> {
                    $break
                    Ok($stored)
                }
            }
            fails::<Broken>(&[$($case),+]);
        }
    };
}

fn messages(stored: &mut Stored) -> impl Iterator<Item = &mut StoredMessage> {
    let queues = stored.outbox.values_mut();
    queues.flat_map(|queue| queue.iter_mut().map(|(_, message)| message))
}

/// The names in lower case: lists of names that differ in case are joined.
fn folded<T>(lists: BTreeMap<PeerName, Vec<T>>) -> BTreeMap<PeerName, Vec<T>> {
    let mut joined: BTreeMap<PeerName, Vec<T>> = BTreeMap::new();
    for (name, list) in lists {
        let name = PeerName::new(&name.as_str().to_ascii_lowercase());
        joined
            .entry(name.expect("a name"))
            .or_default()
            .extend(list);
    }
    joined
}

loads!(a_storage_that_sorts_numbers_as_texts, stored => {
    for queue in stored.outbox.values_mut() {
        queue.sort_by_key(|(sequence, _)| sequence.to_string());
    }
}; "order_of_sequences", "many_messages");

loads!(a_storage_that_sorts_numbers_from_the_lowest_byte, stored => {
    for queue in stored.outbox.values_mut() {
        queue.sort_by_key(|(sequence, _)| sequence.to_le_bytes());
    }
}; "order_of_sequences", "many_messages");

loads!(a_storage_that_sorts_by_id, stored => {
    for queue in stored.outbox.values_mut() {
        queue.sort_by_key(|(_, message)| message.id);
    }
}; "order_of_ids", "fields");

loads!(a_storage_that_has_positions_in_disorder, stored => {
    for accepted in stored.accepted.values_mut() {
        accepted.reverse();
    }
}; "accepted_by_sender", "window");

loads!(a_storage_that_loses_the_last_message, stored => {
    for queue in stored.outbox.values_mut() {
        queue.pop();
    }
}; "last_change", "groups_by_receiver");

loads!(a_storage_that_has_a_message_twice, stored => {
    for queue in stored.outbox.values_mut() {
        queue.extend(queue.last().cloned());
    }
}; "groups_by_receiver");

loads!(a_storage_without_expiry, stored => {
    messages(&mut stored).for_each(|message| message.expires_at = None);
}; "no_expiry", "expiries", "fields");

loads!(a_storage_in_which_all_expires, stored => {
    for message in messages(&mut stored) {
        message.expires_at.get_or_insert_default();
    }
}; "no_expiry");

loads!(a_storage_that_counts_milliseconds, stored => {
    for message in messages(&mut stored) {
        let millis = message.expires_at.map(|at| at.as_millis());
        let millis = millis.map(|millis| u64::try_from(millis).unwrap_or(u64::MAX));
        message.expires_at = millis.map(std::time::Duration::from_millis);
    }
}; "expiries", "fields");

loads!(a_storage_without_properties, stored => {
    messages(&mut stored).for_each(|message| message.properties = Default::default());
}; "fields");

loads!(a_storage_that_ends_bodies_at_a_mebibyte, stored => {
    for message in messages(&mut stored) {
        let mut body = mem::take(&mut message.body).into_bytes();
        body.truncate(1 << 20);
        message.body = body.into();
    }
}; "large_bodies", "large_bodies_go");

loads!(a_storage_that_ends_bodies_at_zero, stored => {
    for message in messages(&mut stored) {
        let body = mem::take(&mut message.body).into_bytes();
        let end = body.iter().position(|byte| *byte == 0).unwrap_or(body.len());
        message.body = body.slice(..end).into();
    }
}; "fields");

loads!(a_storage_that_drops_empty_bodies, stored => {
    for queue in stored.outbox.values_mut() {
        queue.retain(|(_, message)| !message.body.is_empty());
    }
}; "empty_bodies");

loads!(a_storage_that_folds_the_case_of_receivers, stored => {
    stored.outbox = folded(mem::take(&mut stored.outbox));
}; "names");

loads!(a_storage_that_folds_the_case_of_senders, stored => {
    stored.accepted = folded(mem::take(&mut stored.accepted));
}; "names");

loads!(a_storage_that_trims_names, stored => {
    let clocks = mem::take(&mut stored.clocks).into_iter();
    stored.clocks = clocks
        .filter_map(|(name, clock)| Some((PeerName::new(name.as_str().trim()).ok()?, clock)))
        .collect();
}; "names");

loads!(a_storage_whose_clocks_stand, stored => {
    stored.clocks.values_mut().for_each(|clock| clock.since = None);
}; "clocks", "clock_again");

loads!(a_storage_whose_clocks_begin_anew, stored => {
    stored.clocks.values_mut().for_each(|clock| clock.disconnected = Default::default());
}; "clocks");

loads!(a_storage_without_clocks_of_empty_queues, stored => {
    let outbox = &stored.outbox;
    stored.clocks.retain(|name, _| outbox.contains_key(name));
}; "clocks", "clock_without_messages");

loads!(a_storage_of_a_thousand_messages, stored => {
    stored.outbox.values_mut().for_each(|queue| queue.truncate(1000));
}; "many_messages");

loads!(a_storage_that_knows_an_id_once, stored => {
    for accepted in stored.accepted.values_mut() {
        let mut seen: Vec<MessageId> = Vec::new();
        accepted.retain(|(_, id)| !seen.contains(id) && { seen.push(*id); true });
    }
}; "accepted_again");

changes!(a_storage_that_removes_ranges_without_their_end,
    Change::RemovedTo { to, up_to } => match up_to.checked_sub(1) {
        Some(up_to) => vec![Change::RemovedTo { to, up_to }],
        None => Vec::new(),
    };
    "removal_of_range", "many_messages");

changes!(a_storage_that_removes_one_in_place_of_a_range,
    Change::RemovedTo { to, up_to } => vec![Change::Removed { to, sequence: up_to }];
    "removal_of_range", "removal_beyond");

changes!(a_storage_that_removes_a_range_in_place_of_one,
    Change::Removed { to, sequence } => vec![Change::RemovedTo { to, up_to: sequence }];
    "removal_of_one", "removal_of_absent");

changes!(a_storage_that_removes_by_sequence_alone,
    Change::Removed { to, sequence } => {
        let alice: PeerName = "alice".parse().expect("a name");
        let also = Change::Removed { to: alice, sequence };
        vec![Change::Removed { to, sequence }, also]
    };
    "removal_by_receiver");

changes!(a_storage_that_clears_messages_but_no_clock,
    Change::Cleared { to } => vec![Change::RemovedTo { to, up_to: MAX_SEQUENCE }];
    "removal_of_all", "clock_without_messages");

changes!(a_storage_that_clears_what_was_accepted,
    Change::Cleared { to } => {
        let forgotten = Change::Forgotten { from: to.clone(), below: MAX_SEQUENCE };
        vec![Change::Cleared { to }, forgotten]
    };
    "removal_of_all", "accepted_and_sent");

changes!(a_storage_that_never_clears, Change::Cleared { .. } => Vec::new(); "removal_of_all");

changes!(a_storage_that_forgets_with_the_end,
    Change::Forgotten { from, below } => {
        let below = if below < MAX_SEQUENCE { below + 1 } else { below };
        vec![Change::Forgotten { from, below }]
    };
    "forgetting", "window");

changes!(a_storage_that_never_forgets,
    Change::Forgotten { .. } => Vec::new();
    "forgetting", "window");

changes!(a_storage_that_accepts_nothing,
    Change::Accepted { .. } => Vec::new();
    "accepted_by_sender", "window");

changes!(a_storage_that_mixes_accepted_and_sent,
    Change::Forgotten { from, below } => {
        let removed = below.checked_sub(1).map(|up_to| Change::RemovedTo { to: from.clone(), up_to });
        removed.into_iter().chain([Change::Forgotten { from, below }]).collect()
    };
    "accepted_and_sent");

changes!(a_storage_that_takes_the_first_clock_of_a_name,
    Change::Clock { name, disconnected, since } if disconnected.as_secs() < 3 => {
        vec![Change::Clock { name, disconnected, since }]
    },
    Change::Clock { .. } => Vec::new();
    "clock_again");

/// Drops the last change of each batch.
#[derive(Default)]
struct DropsTheLast;

impl Fault for DropsTheLast {
    fn apply(&mut self, sound: &mut MemoryStorage, changes: &[Change]) -> Result<(), StorageError> {
        let (_, before) = changes.split_last().unzip();
        sound.apply(before.unwrap_or(changes))
    }
}

#[test]
fn a_storage_that_drops_the_last_change() {
    fails::<DropsTheLast>(&["last_change"]);
}

/// Writes a batch when the next one comes, or it is loaded.
#[derive(Default)]
struct WritesLate(Vec<Change>);

impl Fault for WritesLate {
    fn apply(&mut self, sound: &mut MemoryStorage, changes: &[Change]) -> Result<(), StorageError> {
        let before = mem::replace(&mut self.0, changes.to_vec());
        sound.apply(&before)
    }
}

#[test]
fn a_storage_that_writes_a_batch_with_the_next() {
    fails::<WritesLate>(&["last_change", "loads"]);
}

/// Applies changes one by one, up to the first that fails.
#[derive(Default)]
struct NotAtomic;

impl Fault for NotAtomic {
    fn apply(&mut self, sound: &mut MemoryStorage, changes: &[Change]) -> Result<(), StorageError> {
        for change in changes {
            sound.apply(std::slice::from_ref(change))?;
        }
        Ok(())
    }
}

#[test]
fn a_storage_that_is_not_atomic() {
    let passed = conformance::check(|| {
        let kept = MemoryStorage::new();
        move || Ok(mutant::<NotAtomic>(&kept))
    });
    let failures = passed.expect_err("the suite passes a broken storage");
    let cases: Vec<_> = failures.iter().map(conformance::Failure::case).collect();
    assert_eq!(cases, ["atomic_batch"]);
}

/// Applies removals first, and then the rest.
#[derive(Default)]
struct OutOfOrder;

impl Fault for OutOfOrder {
    fn apply(&mut self, sound: &mut MemoryStorage, changes: &[Change]) -> Result<(), StorageError> {
        let mut changes = changes.to_vec();
        changes.sort_by_key(|change| matches!(change, Change::Pushed { .. }));
        sound.apply(&changes)
    }
}

#[test]
fn a_storage_that_applies_a_batch_out_of_order() {
    fails::<OutOfOrder>(&["order_in_a_batch", "push_after_removal"]);
}

/// Keeps the first message of a sequence.
#[derive(Default)]
struct KeepsTheFirst;

impl Fault for KeepsTheFirst {
    fn apply(&mut self, sound: &mut MemoryStorage, changes: &[Change]) -> Result<(), StorageError> {
        for change in changes {
            let is_there = match change {
                Change::Pushed { to, sequence, .. } => {
                    let stored = sound.stored();
                    let queue = stored.outbox.get(to).into_iter().flatten();
                    queue.into_iter().any(|(number, _)| number == sequence)
                }
                _ => false,
            };
            if !is_there {
                sound.apply(std::slice::from_ref(change))?;
            }
        }
        Ok(())
    }
}

#[test]
fn a_storage_that_keeps_the_first_message_of_a_sequence() {
    fails::<KeepsTheFirst>(&["push_again"]);
}

/// Refuses removals of absent messages.
#[derive(Default)]
struct Strict;

impl Fault for Strict {
    fn apply(&mut self, sound: &mut MemoryStorage, changes: &[Change]) -> Result<(), StorageError> {
        let before = sound.stored();
        sound.apply(changes)?;
        if matches!(changes, [Change::Removed { .. }]) && sound.stored() == before {
            let text = "no such message";
            return Err(StorageError::new(StorageErrorKind::Misuse, text));
        }
        Ok(())
    }
}

#[test]
fn a_storage_that_refuses_to_remove_what_is_absent() {
    fails::<Strict>(&["removal_of_absent"]);
}

/// Returns the contents once.
#[derive(Default)]
struct LoadsOnce(bool);

impl Fault for LoadsOnce {
    fn load(&mut self, stored: Stored) -> Result<Stored, StorageError> {
        let was_loaded = mem::replace(&mut self.0, true);
        Ok(if was_loaded {
            Stored::default()
        } else {
            stored
        })
    }
}

#[test]
fn a_storage_that_loads_once() {
    fails::<LoadsOnce>(&["loads"]);
}

#[test]
fn a_storage_that_begins_empty_each_time() {
    let failures = conformance::check(|| || Ok(MemoryStorage::new())).expect_err("it is broken");
    let cases: Vec<_> = failures.iter().map(conformance::Failure::case).collect();
    assert!(cases.contains(&"opens"), "{cases:?}");
    assert!(!cases.contains(&"empty"), "{cases:?}");
}

#[test]
fn a_storage_that_cannot_be_opened_says_so_in_each_case() {
    let failures = conformance::check(|| {
        || {
            let error = StorageError::new(StorageErrorKind::Locked, "in use");
            Err::<MemoryStorage, _>(error)
        }
    });
    let failures = failures.expect_err("it is broken");
    assert_eq!(failures.iter().count(), conformance::cases().len());
    assert!(
        failures.to_string().contains("is open already: in use"),
        "{failures}"
    );
}
