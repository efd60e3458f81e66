//! The methods of the management interface, one noun a module, with SPDK's names and parameters for what both
//! have. This module owns their table.
//!
//! There are two kinds. An edit changes a [`Draft`] of the model and nothing else; the daemon runs edits one at
//! a time and hands the draft on as a whole. A question looks at the daemon and may wait, but changes nothing.

mod base64;
mod bdev;
mod bdev_delay;
mod bdev_error;
mod bdev_iostat;
mod bdev_malloc;
mod bdev_null;
mod bdev_nvme;
mod bdev_nvme_admin;
mod bdev_nvme_options;
mod bdev_uring;
mod configuration;
mod foreign;
mod framework;
mod log;
mod notify;
mod nvmf_config;
mod nvmf_discovery;
mod nvmf_host;
mod nvmf_listener;
mod nvmf_namespace;
mod nvmf_report;
mod nvmf_subsystem;
mod nvmf_transport;
pub mod params;
mod process;
mod wait;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde_json::Value;

use crate::daemon::Daemon;
use crate::model::Draft;
use crate::rpc::error::RpcError;

pub(crate) use bdev_nvme::{attach_call, attach_deferred, unreached};
pub(crate) use nvmf_listener::ana_word;
pub(crate) use nvmf_report::commands;
pub(crate) use nvmf_subsystem::hex;
pub(crate) use wait::wait_for;

/// When a method may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Only before `framework_start_init`.
    StartUp,
    /// Only after it.
    Running,
    /// Always.
    Any,
}

impl Phase {
    /// Whether a method of this phase may be called in a target that has, or has not yet, been started.
    pub fn allows(self, started: bool) -> bool {
        match self {
            Phase::StartUp => !started,
            Phase::Running => started,
            Phase::Any => true,
        }
    }
}

/// The answer of a question.
pub type Answer = Pin<Box<dyn Future<Output = Result<Value, RpcError>> + Send>>;

/// What a method does.
#[derive(Clone, Copy)]
pub enum Action {
    /// Changes a draft of the model. May block on a file.
    Edit(fn(&mut Draft, Value) -> Result<Value, RpcError>),
    /// Looks, waits, or acts on the process; never on the model.
    Ask(fn(Arc<Daemon>, Value) -> Answer),
}

/// One method.
#[derive(Clone, Copy)]
pub struct Method {
    /// Its name in requests.
    pub name: &'static str,
    /// When it may be called.
    pub phase: Phase,
    /// What it does.
    pub action: Action,
}

/// A row for a function `fn(&mut Draft, P) -> Result<Value, RpcError>`.
macro_rules! edit {
    ($phase:ident, $name:literal, $function:path) => {
        Method {
            name: $name,
            phase: Phase::$phase,
            action: Action::Edit(|draft, params| $function(draft, params::decode(params)?)),
        }
    };
}

/// A row for a function `async fn(Arc<Daemon>, P) -> Result<Value, RpcError>`.
macro_rules! ask {
    ($phase:ident, $name:literal, $function:path) => {
        Method {
            name: $name,
            phase: Phase::$phase,
            action: Action::Ask(|daemon, params| {
                Box::pin(async move { $function(daemon, params::decode(params)?).await })
            }),
        }
    };
}

/// Every method, by name.
static METHODS: &[Method] = &[
    edit!(Running, "bdev_aio_create", bdev_uring::create_aio),
    edit!(Running, "bdev_aio_delete", bdev_uring::delete),
    edit!(Running, "bdev_aio_rescan", bdev_uring::rescan),
    edit!(Running, "bdev_delay_create", bdev_delay::create),
    edit!(Running, "bdev_delay_delete", bdev_delay::delete),
    edit!(Running, "bdev_delay_update_latency", bdev_delay::update_latency),
    edit!(Running, "bdev_error_create", bdev_error::create),
    edit!(Running, "bdev_error_delete", bdev_error::delete),
    edit!(Running, "bdev_error_inject_error", bdev_error::inject),
    edit!(Running, "bdev_error_resume_pending", bdev_error::resume_pending),
    edit!(Running, "bdev_examine", bdev::examine),
    ask!(Running, "bdev_get_bdevs", bdev::get_bdevs),
    ask!(Running, "bdev_get_iostat", bdev_iostat::get),
    edit!(Running, "bdev_malloc_create", bdev_malloc::create),
    edit!(Running, "bdev_malloc_delete", bdev_malloc::delete),
    edit!(Running, "bdev_null_create", bdev_null::create),
    edit!(Running, "bdev_null_delete", bdev_null::delete),
    edit!(Running, "bdev_null_resize", bdev_null::resize),
    ask!(Running, "bdev_nvme_apply_firmware", bdev_nvme_admin::apply_firmware),
    edit!(Running, "bdev_nvme_attach_controller", bdev_nvme::attach),
    edit!(Running, "bdev_nvme_detach_controller", bdev_nvme::detach),
    edit!(Running, "bdev_nvme_disable_controller", bdev_nvme::disable),
    edit!(Running, "bdev_nvme_enable_controller", bdev_nvme::enable),
    ask!(Running, "bdev_nvme_get_controller_health_info", bdev_nvme_admin::get_health),
    ask!(Running, "bdev_nvme_get_controllers", bdev_nvme::get_controllers),
    ask!(Running, "bdev_nvme_get_io_paths", bdev_nvme::get_io_paths),
    ask!(Running, "bdev_nvme_get_transport_statistics", bdev_nvme::get_transport_statistics),
    edit!(Running, "bdev_nvme_reset_controller", bdev_nvme::reset),
    ask!(Running, "bdev_nvme_send_cmd", bdev_nvme_admin::send_cmd),
    edit!(Any, "bdev_nvme_set_hotplug", bdev_nvme_options::set_hotplug),
    edit!(Running, "bdev_nvme_set_multipath_policy", bdev_nvme::set_multipath_policy),
    edit!(Any, "bdev_nvme_set_options", bdev_nvme_options::set_options),
    ask!(Running, "bdev_nvme_set_preferred_path", bdev_nvme::set_preferred_path),
    edit!(Any, "bdev_set_options", bdev::set_options),
    ask!(Running, "bdev_reset_iostat", bdev_iostat::reset),
    edit!(Running, "bdev_uring_create", bdev_uring::create),
    edit!(Running, "bdev_uring_delete", bdev_uring::delete),
    edit!(Running, "bdev_uring_rescan", bdev_uring::rescan),
    edit!(Running, "bdev_wait_for_examine", bdev::wait_for_examine),
    ask!(Any, "framework_get_config", framework::get_config),
    ask!(Running, "framework_get_reactors", framework::get_reactors),
    ask!(Any, "framework_get_subsystems", framework::get_subsystems),
    ask!(Running, "framework_get_scheduler", framework::get_scheduler),
    edit!(Any, "framework_set_scheduler", framework::set_scheduler),
    ask!(StartUp, "framework_start_init", framework::start_init),
    ask!(Any, "framework_wait_init", framework::wait_init),
    ask!(Running, "iobuf_get_stats", framework::get_memory),
    ask!(Running, "load_config", configuration::load),
    ask!(Running, "load_subsystem_config", configuration::load_subsystem),
    ask!(Any, "log_clear_flag", log::clear_flag),
    ask!(Any, "log_get_flags", log::get_flags),
    ask!(Any, "log_get_level", log::get_level),
    ask!(Any, "log_get_print_level", log::get_level),
    ask!(Any, "log_set_flag", log::set_flag),
    ask!(Any, "log_set_level", log::set_level),
    ask!(Any, "log_set_print_level", log::set_level),
    ask!(Running, "notify_get_notifications", notify::get_notifications),
    ask!(Running, "notify_get_types", notify::get_types),
    edit!(Running, "nvmf_create_subsystem", nvmf_subsystem::create),
    edit!(Running, "nvmf_create_transport", nvmf_transport::create),
    edit!(Running, "nvmf_delete_subsystem", nvmf_subsystem::delete),
    edit!(Running, "nvmf_discovery_add_referral", nvmf_discovery::add_referral),
    ask!(Running, "nvmf_discovery_get_referrals", nvmf_discovery::get_referrals),
    edit!(Running, "nvmf_discovery_remove_referral", nvmf_discovery::remove_referral),
    ask!(Running, "nvmf_get_stats", nvmf_report::get_stats),
    ask!(Running, "nvmf_get_subsystems", nvmf_subsystem::get),
    ask!(Running, "nvmf_get_transports", nvmf_transport::get),
    edit!(Any, "nvmf_set_config", nvmf_config::set_config),
    edit!(Any, "nvmf_set_crdt", nvmf_config::set_crdt),
    edit!(Any, "nvmf_set_max_subsystems", nvmf_config::set_max_subsystems),
    edit!(Running, "nvmf_subsystem_add_host", nvmf_host::add),
    edit!(Running, "nvmf_subsystem_add_listener", nvmf_listener::add),
    edit!(Running, "nvmf_subsystem_add_ns", nvmf_namespace::add),
    edit!(Running, "nvmf_subsystem_allow_any_host", nvmf_host::allow_any),
    ask!(Running, "nvmf_subsystem_get_controllers", nvmf_report::get_controllers),
    ask!(Running, "nvmf_subsystem_get_listeners", nvmf_listener::get),
    ask!(Running, "nvmf_subsystem_get_qpairs", nvmf_report::get_qpairs),
    edit!(Running, "nvmf_subsystem_listener_set_ana_state", nvmf_listener::set_ana_state),
    edit!(Running, "nvmf_subsystem_remove_host", nvmf_host::remove),
    edit!(Running, "nvmf_subsystem_remove_listener", nvmf_listener::remove),
    edit!(Running, "nvmf_subsystem_remove_ns", nvmf_namespace::remove),
    ask!(Any, "rpc_get_methods", process::get_methods),
    ask!(Any, "save_config", configuration::save),
    ask!(Any, "spdk_get_version", process::get_version),
    ask!(Any, "spdk_kill_instance", process::kill_instance),
    ask!(Running, "thread_get_pollers", framework::get_pollers),
    ask!(Running, "thread_get_stats", framework::get_threads),
];

/// Every method that there is.
pub fn all() -> impl Iterator<Item = Method> {
    METHODS.iter().copied().chain(foreign::METHODS.iter().copied())
}

/// A method by its name.
pub fn find(name: &str) -> Option<Method> {
    all().find(|method| method.name == name)
}

/// Whether a method only waits for something, maybe for ever: nothing is lost when it is given up.
pub fn only_waits(name: &str) -> bool {
    matches!(name, "bdev_get_bdevs" | "framework_wait_init")
}

/// Runs an edit on a draft.
///
/// # Errors
/// -32601 when there is no such method, -1 when it is not for this phase, -32602 when it edits nothing, and
/// the method's own.
pub fn run_edit(draft: &mut Draft, name: &str, params: Value, started: bool) -> Result<Value, RpcError> {
    let method = find(name).ok_or_else(|| RpcError::method_not_found(name))?;
    check_phase(&method, started)?;
    match method.action {
        Action::Edit(edit) => edit(draft, params),
        Action::Ask(_) => Err(RpcError::invalid_params(format!(
            "{name} configures nothing and can't be in a configuration"
        ))),
    }
}

/// Whether a method may be called now.
///
/// # Errors
/// -1 with what would have to come before.
pub fn check_phase(method: &Method, started: bool) -> Result<(), RpcError> {
    match (method.phase.allows(started), started) {
        (true, _) => Ok(()),
        (false, true) => {
            let reason = format!("{} may only be called before framework_start_init", method.name);
            Err(RpcError::invalid_state(reason))
        }
        (false, false) => {
            let reason = format!("{} may only be called after framework_start_init", method.name);
            Err(RpcError::invalid_state(reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Without it: a method could be listed twice, one of them never called.
    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = all().map(|method| method.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
