//! The limit of open files, which bounds the connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit of open files to the highest that the system allows. Many systems start a
/// program with 1024, as `select` cannot take more
/// (<https://www.rabbitmq.com/docs/networking#open-file-handle-limit>). Without effect if the system
/// refuses it.
pub(crate) fn raise_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    let _refused = setrlimit(Resource::Nofile, raised);
}
