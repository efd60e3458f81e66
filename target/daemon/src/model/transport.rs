//! The TCP transport's options in the words of SPDK, and what they mean to the NVMe/TCP target.

use serde_json::{Value, json};
use sledge_nvmf::target::definition::TransportOptions;

use crate::rpc::error::RpcError;

/// Bytes of the pages that MDTS counts in (CAP.MPSMIN).
const PAGE_BYTES: u32 = 4096;

/// The transport as it was created: what hosts get, and numbers that mean something to SPDK only and are
/// kept so that a configuration is given back as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transport {
    /// What hosts get.
    pub options: TransportOptions,
    /// Most entries of the admin queue.
    pub max_aq_depth: u32,
    /// Bytes of one data buffer.
    pub io_unit_size: u32,
    /// Data buffers in the pool.
    pub num_shared_buffers: u32,
    /// Data buffers that each reactor keeps.
    pub buf_cache_size: u32,
    /// Seconds until an abort that does not end is given up.
    pub abort_timeout_sec: u32,
    /// Socket priority.
    pub sock_priority: u32,
}

impl Default for Transport {
    fn default() -> Self {
        Transport {
            options: TransportOptions::default(),
            max_aq_depth: 128,
            io_unit_size: 131_072,
            num_shared_buffers: 511,
            buf_cache_size: 32,
            abort_timeout_sec: 1,
            sock_priority: 0,
        }
    }
}

impl Transport {
    /// Checks the numbers that hosts will see.
    ///
    /// # Errors
    /// -32602 naming the parameter.
    pub fn check(&self) -> Result<(), RpcError> {
        let within = |name: &str, value: u64, least: u64, most: u64| {
            if (least..=most).contains(&value) {
                Ok(())
            } else {
                Err(RpcError::invalid_param(name, format!("{value} is not within {least} to {most}")))
            }
        };
        let options = &self.options;
        within("max_queue_depth", options.max_queue_depth.into(), 2, 4096)?;
        within("max_io_qpairs_per_ctrlr", options.max_io_queues_per_controller.into(), 1, 1024)?;
        within("max_io_size", options.max_io_bytes.into(), (2 * PAGE_BYTES).into(), 1 << 20)?;
        within("in_capsule_data_size", options.in_capsule_data_bytes.into(), 0, 1 << 20)?;
        if !options.max_io_bytes.is_power_of_two() {
            return Err(RpcError::invalid_param("max_io_size", "not a power of two"));
        }
        if !options.in_capsule_data_bytes.is_multiple_of(16) {
            return Err(RpcError::invalid_param("in_capsule_data_size", "not a multiple of 16"));
        }
        Ok(())
    }

    /// As `nvmf_get_transports` lists it and `nvmf_create_transport` takes it.
    pub fn to_json(&self) -> Value {
        json!({
            "trtype": "TCP",
            "max_queue_depth": self.options.max_queue_depth,
            "max_io_qpairs_per_ctrlr": self.options.max_io_queues_per_controller,
            "in_capsule_data_size": self.options.in_capsule_data_bytes,
            "max_io_size": self.options.max_io_bytes,
            "io_unit_size": self.io_unit_size,
            "max_aq_depth": self.max_aq_depth,
            "num_shared_buffers": self.num_shared_buffers,
            "buf_cache_size": self.buf_cache_size,
            "dif_insert_or_strip": false,
            "zcopy": false,
            "c2h_success": self.options.c2h_success,
            "sock_priority": self.sock_priority,
            "abort_timeout_sec": self.abort_timeout_sec,
        })
    }
}
