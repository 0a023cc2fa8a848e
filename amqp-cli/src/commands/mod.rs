//! The commands.

pub(crate) mod bench;
pub(crate) mod bind;
pub(crate) mod broker;
pub(crate) mod consume;
pub(crate) mod declare;
pub(crate) mod delete;
pub(crate) mod get;
pub(crate) mod manual;
pub(crate) mod ping;
pub(crate) mod proxy;
pub(crate) mod publish;
pub(crate) mod purge;
pub(crate) mod rpc;
pub(crate) mod tail;
