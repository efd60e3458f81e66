//! What a failed call answers: a code and a reason.
//!
//! Codes are those of JSON-RPC 2.0 (section 5.1) and, as in SPDK, negative error numbers of the system for
//! what the request asked of things that exist or don't.

use serde_json::{Value, json};
use thiserror::Error;

/// The error member of a response.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{message}")]
pub struct RpcError {
    /// JSON-RPC code, or a negative error number of the system.
    pub code: i64,
    /// One line: what is wrong and, where it can be said, what to do.
    pub message: String,
    /// The parameter that is at fault, as names and indices from the parameters' top, where one is known.
    pub path: Vec<Step>,
}

/// One step of the way to a value inside a JSON document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Into an object.
    Key(String),
    /// Into an array.
    Index(usize),
}

impl RpcError {
    fn new(code: i64, message: impl Into<String>) -> RpcError {
        RpcError { code, message: message.into(), path: Vec::new() }
    }

    /// -32700: the bytes are not JSON.
    pub fn parse(reason: impl std::fmt::Display) -> RpcError {
        RpcError::new(-32700, format!("Parse error: {reason}"))
    }

    /// -32600: JSON, but not a request.
    pub fn invalid_request(reason: impl std::fmt::Display) -> RpcError {
        RpcError::new(-32600, format!("Invalid request: {reason}"))
    }

    /// -32601: no such method.
    pub fn method_not_found(method: &str) -> RpcError {
        RpcError::new(-32601, format!("Method not found: {method}"))
    }

    /// -32602: the parameters are not what the method takes.
    pub fn invalid_params(reason: impl std::fmt::Display) -> RpcError {
        RpcError::new(-32602, format!("Invalid parameters: {reason}"))
    }

    /// -32602 for one parameter, named as in the request.
    pub fn invalid_param(name: &str, reason: impl std::fmt::Display) -> RpcError {
        let path = name.split('.').map(|key| Step::Key(key.to_owned())).collect();
        RpcError { path, ..RpcError::invalid_params(format!("{name}: {reason}")) }
    }

    /// -32603: the target failed, not the request.
    pub fn internal(reason: impl std::fmt::Display) -> RpcError {
        RpcError::new(-32603, format!("Internal error: {reason}"))
    }

    /// -1: the method can't be called at this point of the target's life.
    pub fn invalid_state(reason: impl Into<String>) -> RpcError {
        RpcError::new(-1, reason)
    }

    /// A negative error number of the system, with its usual words and a reason.
    pub fn errno(number: i32, words: &str, reason: impl std::fmt::Display) -> RpcError {
        RpcError::new(-i64::from(number), format!("{words}: {reason}"))
    }

    /// The negative error number of a failed system call, or -32603 where it has none.
    pub fn system(error: &std::io::Error, message: impl std::fmt::Display) -> RpcError {
        RpcError::new(error.raw_os_error().map_or(-32603, |number| -i64::from(number)), message.to_string())
    }

    /// As the `error` member of a response.
    pub fn to_json(&self) -> Value {
        json!({"code": self.code, "message": self.message})
    }
}
