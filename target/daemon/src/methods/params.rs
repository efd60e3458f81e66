//! Reading a method's parameters, with errors that name the parameter at fault.

use std::fmt::Debug;

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;

use crate::rpc::error::{RpcError, Step};

/// Reads parameters into the method's own type.
///
/// # Errors
/// -32602 naming the parameter: unknown, missing or of the wrong type.
pub fn decode<P: DeserializeOwned>(params: Value) -> Result<P, RpcError> {
    serde_path_to_error::deserialize(params).map_err(|error| {
        let path: Vec<Step> = error
            .path()
            .iter()
            .filter_map(|segment| match segment {
                Segment::Seq { index } => Some(Step::Index(*index)),
                Segment::Map { key } => Some(Step::Key(key.clone())),
                Segment::Enum { .. } | Segment::Unknown => None,
            })
            .collect();
        let reason = error.inner();
        let base = if path.is_empty() {
            RpcError::invalid_params(reason)
        } else {
            RpcError::invalid_params(format!("{}: {reason}", error.path()))
        };
        RpcError { path, ..base }
    })
}

/// Accepts a parameter that SPDK's clients and configurations send, but only with the value that asks for
/// nothing this target lacks.
///
/// # Errors
/// -32602 naming the parameter when it asks for more.
pub fn neutral<T: PartialEq + Debug>(name: &str, value: Option<T>, neutral: T) -> Result<(), RpcError> {
    match value {
        Some(value) if value != neutral => {
            let reason = format!("{value:?} is not supported by this target, only {neutral:?}");
            Err(RpcError::invalid_param(name, reason))
        }
        _ => Ok(()),
    }
}

/// As [`neutral`] for what names, or is, a secret: errors end up in logs and on terminals.
///
/// # Errors
/// -32602 naming the parameter, not its value.
pub fn no_secret(name: &str, value: Option<&str>) -> Result<(), RpcError> {
    match value {
        None | Some("") => Ok(()),
        Some(_) => Err(RpcError::invalid_param(name, "is not supported by this target: leave it out")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[allow(dead_code)]
        port: u16,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[allow(dead_code)]
        count: u64,
        #[allow(dead_code)]
        listen: Option<Inner>,
    }

    // Without it: an error might not say which parameter it is about, or point at another in a file.
    #[test]
    fn errors_name_the_parameter() {
        for (value, words, path) in [
            (json!({"count": "x"}), "count: invalid type: string \"x\", expected u64", vec!["count"]),
            (json!({"count": -1}), "count: invalid value: integer `-1`, expected u64", vec!["count"]),
            (json!({}), "missing field `count`", vec![]),
            (json!({"count": 1, "extra": 1}), "unknown field `extra`", vec!["extra"]),
            (
                json!({"count": 1, "listen": {"port": 70000}}),
                "listen.port: invalid value",
                vec!["listen", "port"],
            ),
        ] {
            let error = decode::<Outer>(value).unwrap_err();
            assert_eq!(error.code, -32602);
            assert!(error.message.contains(words), "{}", error.message);
            let expected: Vec<Step> = path.into_iter().map(|key| Step::Key(key.into())).collect();
            assert_eq!(error.path, expected, "{}", error.message);
        }
        assert!(neutral("md_size", Some(0), 0).is_ok() && neutral("md_size", None, 0).is_ok());
        assert!(neutral("md_size", Some(8), 0).unwrap_err().message.contains("md_size"));
    }

    // Without it: a key in a configuration that is refused could be read in the log, by whoever may read that.
    #[test]
    fn errors_do_not_tell_secrets() {
        assert!(no_secret("psk", None).is_ok() && no_secret("psk", Some("")).is_ok());
        let error = no_secret("psk", Some("NVMeTLSkey-1:01:hush")).unwrap_err();
        assert_eq!((error.code, &error.path[..]), (-32602, &[Step::Key("psk".into())][..]));
        assert!(error.message.contains("psk") && !error.message.contains("hush"), "{error}");
    }
}
