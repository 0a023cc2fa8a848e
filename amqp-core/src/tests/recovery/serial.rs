//! The topology, serialised and read back.

use super::*;
use crate::{
    recovery::{Mode, Plan, Topology},
    wire::FieldTable,
};

#[test]
fn a_topology_comes_back_from_formats_for_humans_and_for_machines() {
    let mut rig = Rig::with_topology(Policy::new(1));
    let id = rig.channels[0];
    rig.call(id, &unnamed());
    rig.call(id, &bind("", "work", ""));
    let global = true;
    rig.call(
        id,
        &basic::Qos {
            prefetch_count: 9,
            global,
            ..basic::Qos::default()
        },
    );
    let mut mine = queue_named("mine");
    mine.arguments = FieldTable::new().with("x-max-length", 5_i64);
    rig.call(id, &mine);
    let topology = rig.recovery.topology();

    let json = serde_json::to_string(topology).unwrap();
    assert_eq!(&serde_json::from_str::<Topology>(&json).unwrap(), topology);
    let machine = postcard::to_allocvec(topology).unwrap();
    assert_eq!(
        &postcard::from_bytes::<Topology>(&machine).unwrap(),
        topology
    );
}

#[test]
fn a_topology_can_be_written_by_hand() {
    let text = r#"{
        "exchanges": [{"name": "work", "kind": "topic", "durable": true}],
        "queues": [{"name": "jobs", "durable": true, "arguments": {"x-queue-type": "quorum"}}],
        "bindings": [{"source": "work", "destination": {"queue": "jobs"}, "routing_key": "a.*"}]
    }"#;
    let topology: Topology = serde_json::from_str(text).unwrap();
    assert_eq!(
        Plan::new(&topology, Mode::Everything).to_string(),
        "open a channel for the entities\n\
         declare exchange \"work\" (topic, durable)\n\
         declare queue \"jobs\" (durable)\n\
         bind queue \"jobs\" to exchange \"work\" with key \"a.*\"\n\
         close the channel of the entities\n"
    );
    assert_eq!(
        serde_json::from_str::<Topology>("{}").unwrap(),
        Topology::default()
    );
    assert!(serde_json::from_str::<Topology>(r#"{"queues": [{}]}"#).is_err());
}
